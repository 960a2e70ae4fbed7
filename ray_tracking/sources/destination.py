"""
Where may a tracked link lead, and what does its ``Location`` header say?

A destination is an absolute http or https URL with a host. What a browser could
read as another host than the one a person sees is refused: user-info
(``https://good@evil``), backslashes (which browsers turn into slashes), control
characters (which they drop) and percent-escapes inside the host.

Everything else belongs to the link's owner and goes out byte for byte: case,
``&amp;``, ``+``, ``'``, escapes in either case, trailing dots, an empty query, a
fragment. Only what a header cannot carry is written differently: a space as
``%20``, other non-ASCII characters as percent-encoded UTF-8, and a non-ASCII host
by IDNA 2008 with the UTS 46 mapping, as browsers do (the standard library's
``idna`` codec is IDNA 2003 and sends ``faß.de`` to ``fass.de``, somebody else's).

The URL is taken apart by two patterns on purpose: :mod:`urllib.parse` removes tabs
and newlines, and so judges another string than the one that is sent.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from string import punctuation
from urllib.parse import quote

from ray_tracking.events import MAX_URL_CHARS

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]")
# re.ASCII: without it, IGNORECASE takes the long s (U+017F) for an s.
_PARTS = re.compile(r"(https?://)([^/?#]*)(.*)", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]{0,5})?")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_MAX_NAME_CHARS = 254  # 253, and the trailing dot
_MAX_PORT = 65535


class _Refused(Exception):
    """The text is the reason that the sender gets to see."""


def check_destination(url: str) -> str | None:
    """
    The reason why ``url`` is refused as a destination, or None.

    White space around it is the caller's to trim; here it is a reason. A space
    inside is not. Stricter than :func:`ray_tracking.pipeline.links.check_link`, which
    says what somebody may report as clicked: this is where we send people.
    """
    try:
        _take_apart(url)
    except _Refused as reason:
        return str(reason)
    return None


def location_header(url: str) -> bytes:
    """
    The value of ``Location`` for a destination: printable ASCII without spaces.

    Raises:
        ValueError: ``url`` is none that :func:`check_destination` lets pass, so
            that nothing else can ever reach a header.
    """
    try:
        scheme, host, port, rest = _take_apart(url)
    except _Refused as reason:
        raise ValueError(str(reason)) from None
    return f"{scheme}{host}{port}{quote(rest, safe=punctuation)}".encode("ascii")


def _take_apart(url: str) -> tuple[str, str, str, str]:
    """``url`` as scheme with slashes, ASCII host, port with colon, and the rest."""
    if len(url) > MAX_URL_CHARS:
        raise _Refused(f"must be at most {MAX_URL_CHARS} characters long")
    if _FORBIDDEN.search(url):
        raise _Refused("must not contain control characters or backslashes")
    if url != url.strip():
        raise _Refused("must not begin or end with white space")
    parts = _PARTS.fullmatch(url)
    if parts is None:
        raise _Refused("must be an absolute URL that begins with http:// or https://")
    scheme, authority, rest = parts.groups()
    if "@" in authority:
        raise _Refused("must not carry a user name or password before the host")
    split = _AUTHORITY.fullmatch(authority)
    port = (split[2] or "") if split else ""
    if split is None or int(port[1:] or 0) > _MAX_PORT:
        raise _Refused("must have a valid host and port")
    return scheme, _ascii_host(split[1]), port, rest


def _ascii_host(host: str) -> str:
    """``host`` as it is if it is ASCII, otherwise its IDNA form."""
    if not host:
        raise _Refused("must have a host")
    if host.startswith("["):
        try:
            if "%" in host:
                raise AddressValueError
            IPv6Address(host[1:-1])
        except AddressValueError:
            raise _Refused("must have a valid IPv6 address as host") from None
        return host
    # Before IDNA, whose cost grows with the length.
    if len(host) > _MAX_NAME_CHARS:
        raise _Refused("must have a host of at most 253 characters")
    name = host if host.isascii() else _idna(host)
    if _NAME.fullmatch(name) is None:
        raise _Refused("must have a valid host name")
    return name


def _idna(host: str) -> str:
    # Rare, and its tables are large: not worth loading before somebody needs them.
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError:
        raise _Refused("must have a valid host name; its xn-- form is taken as it is") from None
