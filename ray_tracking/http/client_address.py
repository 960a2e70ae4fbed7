"""
Whose address is a request's, when there are proxies in front of us?

The peer of the connection cannot be forged; ``X-Forwarded-For``, or ``Forwarded`` where there
is none (RFC 7239), can. Each proxy
appends the address that it saw, so the header is believed from the right, and only as
far as the hops are proxies that the operator trusts: the right-most hop that is not
trusted is the client. With no trusted proxies, or a peer that is none of them, the
header is not read at all.

Garbage ends the walk at the last valid hop: whatever stands left of it cannot be
judged. An empty element is garbage too; skipping it would let a client speak for a
proxy that had nothing to say. If all hops are trusted, the left-most is the client.

Answers are addresses as Postgres takes them: no port, no zone, and IPv4 where an IPv6
socket shows an IPv4 client as ``::ffff:192.0.2.1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, Final

from ray_tracking.errors import SettingsError

MAX_HOPS: Final = 32
# The longest: an IPv6 address with an embedded IPv4 one, a zone, brackets and a port.
_MAX_HOP_CHARS: Final = 80
_FOR: Final = re.compile(r'(?:^|;)\s*for="?([^";,\s]*)"?\s*(?:;|$)', re.IGNORECASE)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


class TrustedProxies:
    """The networks whose ``X-Forwarded-For`` is believed."""

    def __init__(self, networks: Iterable[_Network] = ()) -> None:
        self._networks = tuple(_unmapped(network) for network in networks)

    @classmethod
    def parse(cls, entries: Sequence[str]) -> TrustedProxies:
        """
        From addresses and CIDR blocks, such as ``["10.0.0.0/8", "::1"]``.

        Raises:
            SettingsError: One line that names the first bad entry.
        """
        return cls(_parse_network(entry) for entry in entries)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether an address, as the server gives it, is one of them."""
        parsed = _parse_hop(address)
        return parsed is not None and parsed in self

    def __contains__(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def client_address(
    peer: str | None, forwarded: Sequence[bytes | str], trusted: TrustedProxies
) -> str | None:
    """
    The client's address, or None if the peer has none (a Unix socket).

    Args:
        peer: The address at the other end of the connection, as the server gives it.
        forwarded: The values of all ``X-Forwarded-For`` lines, in their order.
        trusted: The proxies that are believed.
    """
    client = _parse_hop(peer) if peer is not None else None
    if client is None or not trusted:
        return str(client) if client is not None else None
    for hop in _from_the_right(forwarded):
        if client not in trusted:
            break
        address = _parse_hop(hop)
        if address is None:
            break
        client = address
    return str(client)


def of_request(scope: MutableMapping[str, Any], trusted: TrustedProxies) -> str | None:
    """The same for a request, from its ASGI scope."""
    peer = scope["client"][0] if scope.get("client") else None
    if not trusted:
        return client_address(peer, (), trusted)
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if not lines:
        lines = [
            hop
            for name, value in scope["headers"]
            if name == b"forwarded"
            for hop in _hops_of_forwarded(value)
        ]
    return client_address(peer, lines, trusted)


def _hops_of_forwarded(line: bytes) -> list[str]:
    """The ``for`` of each element; what is none, or holds a comma, is garbage."""
    # No further than is read, as above.
    elements = line.decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    found = [_FOR.search(element[:512]) for element in elements]
    return [match[1].strip('"') if match else "" for match in found]


def _from_the_right(forwarded: Sequence[bytes | str]) -> Iterator[str]:
    """At most :data:`MAX_HOPS` elements, nearest hop first."""
    left = MAX_HOPS
    for line in reversed(forwarded):
        text = line.decode("latin-1") if isinstance(line, bytes) else line
        # Split no further than we read: a header may be long, and its left end is anybody's.
        hops = text.rsplit(",", left)[-left:]
        yield from reversed(hops)
        left -= len(hops)
        if not left:
            return


def _parse_hop(hop: str) -> _Address | None:
    """``1.2.3.4``, ``1.2.3.4:80``, ``::1``, ``[::1]``, ``[::1]:80``, with or without a zone."""
    hop = hop.strip(" \t")
    # Before the cache, so that it holds nothing long.
    return _parse(hop) if len(hop) <= _MAX_HOP_CHARS else None


@lru_cache(maxsize=4096)
def _parse(hop: str) -> _Address | None:
    port = ""
    if hop.startswith("["):
        host, bracket, port = hop[1:].partition("]")
        if not bracket or ":" not in host:
            return None
    elif hop.count(":") == 1:
        host, colon, port = hop.partition(":")
        port = colon + port
    else:
        host = hop
    if port and not (port[0] == ":" and port[1:].isascii() and port[1:].isdigit()):
        return None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        # By number, so that the zone is gone.
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _parse_network(entry: str) -> _Network:
    try:
        network: _Network | None = ip_network(entry.strip(), strict=False)
    except ValueError:
        network = None
    # "10.0.0.1/8" may mean the one address or the whole network: ask, rather than trust more.
    if network is None or int(network.network_address) != int(ip_interface(entry.strip()).ip):
        hint = f"; did you mean {network}?" if network is not None else ""
        raise SettingsError(
            f"trusted_proxies: {entry[:80]!r} is not an address or a CIDR block{hint}"
        )
    return network


def _unmapped(network: _Network) -> _Network:
    """The IPv4 network behind ``::ffff:0:0/96``: hops are compared in their IPv4 form."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
