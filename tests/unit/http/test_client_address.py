"""The client's address: what proxies that we trust say, and nobody else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_tracking.errors import SettingsError
from ray_tracking.http.client_address import MAX_HOPS, TrustedProxies, client_address, of_request

NOBODY = TrustedProxies.parse([])
INSIDE = TrustedProxies.parse(["10.0.0.0/8", " 2001:db8:cafe::/48 ", "192.0.2.7"])

addresses = st.ip_addresses().map(str)
public = addresses.filter(lambda text: ip_address(text) not in INSIDE)
inside = st.ip_addresses(v=4, network="10.0.0.0/8").map(str)


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address("203.0.113.9", [b"198.51.100.1"], NOBODY) == "203.0.113.9"


def test_the_right_most_hop_that_is_not_trusted_is_the_client() -> None:
    forwarded = [b"1.1.1.1, 198.51.100.1, 10.0.0.2"]

    assert client_address("10.0.0.1", forwarded, INSIDE) == "198.51.100.1"


@given(public, st.lists(st.binary(max_size=30) | addresses.map(str.encode)))
def test_a_peer_that_is_not_trusted_cannot_say_who_it_is(peer: str, forwarded: list[bytes]) -> None:
    assert client_address(peer, forwarded, INSIDE) == client_address(peer, [], NOBODY)


@given(st.text(st.characters(codec="latin-1"), max_size=60), public, st.lists(inside, max_size=5))
@example("1.1.1.1", "198.51.100.1", ["10.0.0.2"])
@example("1.1.1.1,", "198.51.100.1", [])
def test_what_the_client_writes_into_the_header_changes_nothing(
    forged: str, client: str, proxies: list[str]
) -> None:
    """The first proxy appends the client's real address behind whatever the client sent."""
    honest = ", ".join([client, *proxies])

    answer = client_address("10.0.0.1", [honest], INSIDE)

    assert answer == client_address("10.0.0.1", [f"{forged}, {honest}"], INSIDE)
    assert answer == client_address("10.0.0.1", [forged, honest], INSIDE)


def test_several_header_lines_are_one_list() -> None:
    lines = [b"1.1.1.1", b"198.51.100.1,10.0.0.3", b"10.0.0.2"]

    assert client_address("10.0.0.1", lines, INSIDE) == "198.51.100.1"


def test_if_all_hops_are_trusted_the_left_most_is_the_client() -> None:
    assert client_address("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], INSIDE) == "10.0.0.3"
    assert client_address("10.0.0.1", [], INSIDE) == "10.0.0.1"


@pytest.mark.parametrize(
    "garbage",
    [
        b"", b" ", b"unknown", b"_hidden", b"1.2.3", b"1.2.3.4.5", b"1.2.3.4:", b"1.2.3.4:x",
        b"1.2.3.4:80:80", b"01.2.3.4", b"[::1", b"::1]", b"[::1]x", b"[::1]80", b"[1.2.3.4]",
        b"[]:80", b"1.2.3.4/24", b"\xff", b"\x00", b"for=1.2.3.4", b'"1.2.3.4"', b"1" * 10_000,
        "1.2.3.4:\u00b2".encode("latin-1"), b"[::1]:", b"1.2.3.4%eth0",
    ],
)  # fmt: skip
def test_garbage_stops_the_walk_at_the_last_valid_hop(garbage: bytes) -> None:
    """Skipping it would take the word of somebody further out."""
    forwarded = [b"1.1.1.1, " + garbage + b", 10.0.0.2"]

    assert client_address("10.0.0.1", forwarded, INSIDE) == "10.0.0.2"


@pytest.mark.parametrize(
    ("hop", "client"),
    [
        (b"198.51.100.1:4711", "198.51.100.1"),
        (b"\t198.51.100.1 ", "198.51.100.1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"2001:DB8:0:0::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]:443", "2001:db8::1"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"[fe80::1%25eth0]:80", "fe80::1"),
        (b"::ffff:198.51.100.1", "198.51.100.1"),
        (b"[::ffff:198.51.100.1]:80", "198.51.100.1"),
    ],
)
def test_ports_brackets_and_zones_are_taken_off(hop: bytes, client: str) -> None:
    """Postgres stores an address, not a place on a network card."""
    assert client_address("10.0.0.1", [hop], INSIDE) == client
    assert client_address("10.0.0.1", [hop.decode()], INSIDE) == client
    assert client_address(hop.decode().strip(), [], NOBODY) == client


def test_an_ipv4_client_of_an_ipv6_socket_is_itself() -> None:
    assert client_address("::ffff:203.0.113.9", [b"1.1.1.1"], INSIDE) == "203.0.113.9"
    assert client_address("::ffff:10.0.0.1", [b"198.51.100.1"], INSIDE) == "198.51.100.1"


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/app.sock", "unix:"])
def test_a_peer_without_an_address_gives_none_and_is_never_trusted(peer: str | None) -> None:
    assert client_address(peer, [b"1.1.1.1"], NOBODY) is None
    assert client_address(peer, [b"1.1.1.1"], INSIDE) is None


def test_the_walk_ends_after_so_many_hops() -> None:
    hops = ["1.1.1.1", *(f"10.0.0.{n}" for n in range(MAX_HOPS))]

    assert client_address("10.1.1.1", [",".join(hops)], INSIDE) == "10.0.0.0"
    assert client_address("10.1.1.1", hops, INSIDE) == "10.0.0.0"
    assert client_address("10.1.1.1", [",".join(hops[:-1])], INSIDE) == "1.1.1.1"


@given(addresses, st.lists(st.text() | st.binary()), st.sampled_from([NOBODY, INSIDE]))
@example("10.0.0.1", [b"," * 100_000], INSIDE)
def test_the_answer_is_always_an_address(
    peer: str, forwarded: list[str | bytes], trusted: TrustedProxies
) -> None:
    answer = client_address(peer, forwarded, trusted)

    assert answer is not None
    assert str(ip_address(answer)) == answer


def test_networks_and_single_addresses_are_trusted() -> None:
    for inside_address in ("10.255.255.255", "2001:db8:cafe::9", "192.0.2.7"):
        assert ip_address(inside_address) in INSIDE
    for outside in ("11.0.0.0", "2001:db8:caff::9", "192.0.2.8", "::1"):
        assert ip_address(outside) not in INSIDE


def test_a_network_written_in_the_form_of_ipv6_is_the_ipv4_network() -> None:
    trusted = TrustedProxies([ip_network("::ffff:10.0.0.0/104")])

    assert client_address("10.2.3.4", [b"198.51.100.1"], trusted) == "198.51.100.1"
    assert client_address("10.200.3.4", [b"198.51.100.1"], trusted) == "198.51.100.1"
    assert client_address("11.2.3.4", [b"198.51.100.1"], trusted) == "11.2.3.4"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("", "trusted_proxies: '' is not an address or a CIDR block"),
        ("*", "trusted_proxies: '*' is not an address or a CIDR block"),
        ("proxy.internal", "trusted_proxies: 'proxy.internal' is not an address or a CIDR block"),
        (
            "10.0.0.1/8",
            "trusted_proxies: '10.0.0.1/8' is not an address or a CIDR block; "
            "did you mean 10.0.0.0/8?",
        ),
        ("10.0.0.0/33", "trusted_proxies: '10.0.0.0/33' is not an address or a CIDR block"),
        ("a\nb", "trusted_proxies: 'a\\nb' is not an address or a CIDR block"),
    ],
)
def test_a_bad_entry_stops_the_start_with_one_line_that_names_it(entry: str, line: str) -> None:
    with pytest.raises(SettingsError) as error:
        TrustedProxies.parse(["10.0.0.0/8", entry])

    assert str(error.value) == line


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"for=203.0.113.9"], "203.0.113.9"),
        ([b"For=203.0.113.9; Proto=https;by=10.0.0.1"], "203.0.113.9"),
        ([b'proto=http;for="[2001:db8::9]:4711"'], "2001:db8::9"),
        ([b"for=198.51.100.7, for=203.0.113.9"], "203.0.113.9"),
        ([b"for=198.51.100.7", b"for=203.0.113.9, for=10.0.0.2"], "203.0.113.9"),
        ([b"for=198.51.100.7, for=unknown"], "10.0.0.1"),
        ([b"for=198.51.100.7, for=_hidden"], "10.0.0.1"),
        ([b"for=198.51.100.7, proto=https"], "10.0.0.1"),
        ([b'for="198.51.100.7, for=203.0.113.9'], "203.0.113.9"),
        ([b"xfor=198.51.100.7"], "10.0.0.1"),
        ([b""], "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_the_other_header_is(lines: list[bytes], expected: str) -> None:
    headers = [(b"forwarded", line) for line in lines]
    scope = {"client": ("10.0.0.1", 1), "headers": headers}

    assert of_request(scope, TrustedProxies.parse(["10.0.0.0/8"])) == expected
    assert of_request(scope, TrustedProxies()) == "10.0.0.1"


def test_where_both_are_there_the_older_one_counts() -> None:
    headers = [(b"forwarded", b"for=198.51.100.7"), (b"x-forwarded-for", b"203.0.113.9")]
    scope = {"client": ("10.0.0.1", 1), "headers": headers}

    assert of_request(scope, TrustedProxies.parse(["10.0.0.1"])) == "203.0.113.9"
