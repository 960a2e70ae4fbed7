"""Places of addresses: from the bundled table, and from a user's city database."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ray_tracking.errors import StartError
from ray_tracking.stores.geo import GeoTable

PARIS = {
    "country": {"iso_code": "FR", "names": {"en": "France"}},
    "subdivisions": [{"iso_code": "IDF", "names": {"en": "Île-de-France"}}],
    "city": {"names": {"en": "Paris", "de": "Paris"}},
    "location": {"time_zone": "Europe/Paris", "latitude": "48.8"},
}
PARIS_INFO = {
    "country": "FR",
    "region": "Île-de-France",
    "city": "Paris",
    "timezone": "Europe/Paris",
}
RECORDS: dict[str, Any] = {
    "8.8.8.0/24": PARIS,
    "2001:4860::/32": PARIS,
    "9.9.9.9/32": {
        "subdivisions": [{"iso_code": "ZH"}],
        "location": {"time_zone": "Europe/Zurich"},
    },
    "4.4.4.4/32": {"country": "FR", "subdivisions": {}, "city": ["x"], "location": "y"},
    "4.4.4.5/32": {"subdivisions": [], "city": {"names": {"en": ["x"]}}},
    "4.4.4.6/32": "not a map",
}


class Unsigned(NamedTuple):
    """The reader insists on the right width."""

    number: int
    kind: int
    size: int


def encode(value: Any) -> bytes:
    """A value in MaxMind's data format; only the types that are needed here."""
    if isinstance(value, dict):
        pairs = b"".join(encode(key) + encode(item) for key, item in value.items())
        return control(7, len(value)) + pairs
    if isinstance(value, list):
        return control(11, len(value)) + b"".join(map(encode, value))
    if isinstance(value, Unsigned):
        return control(value.kind, value.size) + value.number.to_bytes(value.size, "big")
    text = str(value).encode()
    return control(2, len(text)) + text


def control(kind: int, size: int) -> bytes:
    assert size < 285
    lead, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    if kind > 7:
        return bytes([lead, kind - 7]) + more
    return bytes([kind << 5 | lead]) + more


def write_mmdb(path: Path, records: dict[str, Any]) -> Path:
    """A database with one 24-bit search tree of IPv6, IPv4 at ``::/96``, as GeoLite2 has it."""
    tree: list[list[int | bytes | None]] = [[None, None]]
    for block, record in records.items():
        network = ip_network(block)
        depth = network.prefixlen + (0 if isinstance(network, IPv6Network) else 96)
        bits = f"{int(network.network_address):0128b}"[:depth]
        node = 0
        for bit in bits[:-1]:
            child = tree[node][int(bit)]
            if not isinstance(child, int):
                child = tree[node][int(bit)] = len(tree)
                tree.append([None, None])
            node = child
        tree[node][int(bits[-1])] = encode(record)
    data, search = b"", b""
    for pair in tree:
        for child in pair:
            if isinstance(child, bytes):
                number, data = len(tree) + 16 + len(data), data + child
            else:
                number = len(tree) if child is None else child
            search += number.to_bytes(3, "big")
    about = {
        "binary_format_major_version": Unsigned(2, 5, 2),
        "binary_format_minor_version": Unsigned(0, 5, 2),
        "build_epoch": Unsigned(1_795_459_200, 9, 8),
        "database_type": "Test-City",
        "description": {"en": "for tests"},
        "ip_version": Unsigned(6, 5, 2),
        "languages": ["en"],
        "node_count": Unsigned(len(tree), 6, 4),
        "record_size": Unsigned(24, 5, 2),
    }
    path.write_bytes(search + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encode(about))
    return path


@pytest.fixture
def cities(tmp_path: Path) -> Iterator[GeoTable]:
    table = GeoTable(write_mmdb(tmp_path / "city.mmdb", RECORDS))
    yield table
    table.close()


COUNTRIES = GeoTable()


@pytest.mark.parametrize(
    ("ip", "country"),
    [
        ("8.8.8.8", "US"),
        ("81.2.69.142", "GB"),
        ("2001:4860:4860::8888", "US"),
        ("2001:4860:4860:0000:0000:0000:0000:8888", "US"),
        ("0000:0000:0000:0000:0000:ffff:81.2.69.142", "GB"),
        ("::ffff:81.2.69.142", "GB"),
        ("::FFFF:5102:458E", "GB"),
    ],
)
def test_a_public_address_has_a_country_without_any_file(ip: str, country: str) -> None:
    assert COUNTRIES.locate(ip) == {"country": country}


NOT_PUBLIC = [
    "10.0.0.1", "127.0.0.1", "0.0.0.0", "169.254.1.1", "192.168.1.1", "100.64.0.1", "192.0.2.1",
    "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1",
    "2001:db8::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_an_address_that_is_not_public_has_no_place(ip: str, tmp_path: Path) -> None:
    """Not even where the user's file has one for it, as this one has for every address."""
    everywhere = GeoTable(write_mmdb(tmp_path / "all.mmdb", {"::/1": PARIS, "8000::/1": PARIS}))

    assert everywhere.locate("8.8.8.8") == PARIS_INFO
    assert everywhere.locate(ip) is None
    assert COUNTRIES.locate(ip) is None
    everywhere.close()


def test_a_block_registered_for_a_region_has_no_country(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some, such as 145.218.0.0/16, are registered for "EU", which is no country's code."""
    monkeypatch.setattr("ray_tracking.stores.geo.iptocc.country_code", lambda address: "EU")

    assert GeoTable().locate("145.218.1.91") is None


@given(st.text() | st.ip_addresses().map(str))
@example("")
@example("8.8.8.8 ")
@example("8.8.8.8/32")
@example("8.8.8.8:80")
@example("08.8.8.8")
@example("1" * 100_000)
@example("8.8.8.8\x00")
@example("\ud800")
@example("٨.٨.٨.٨")
def test_no_text_raises_and_a_country_is_two_letters(ip: str) -> None:
    location = COUNTRIES.locate(ip)

    if location is not None:
        country = location["country"]
        assert set(location) == {"country"}
        assert country.isascii() and country.isupper() and len(country) == 2  # noqa: PT018
        assert country != "EU"


@pytest.mark.parametrize("ip", ["8.8.8.8", "::ffff:8.8.8.8", "2001:4860:4860::8888"])
def test_a_city_database_gives_region_city_and_time_zone(ip: str, cities: GeoTable) -> None:
    """Its country goes before the bundled one, which says US here."""
    assert cities.locate(ip) == PARIS_INFO


def test_what_the_city_database_does_not_know_comes_from_the_bundled_table(
    cities: GeoTable,
) -> None:
    assert cities.locate("81.2.69.142") == {"country": "GB"}
    assert cities.locate("9.9.9.9") == {
        "country": "US",
        "region": "ZH",
        "timezone": "Europe/Zurich",
    }


@pytest.mark.parametrize("ip", ["4.4.4.4", "4.4.4.5", "4.4.4.6"])
def test_a_record_of_another_layout_is_passed_over(ip: str, cities: GeoTable) -> None:
    assert cities.locate(ip) == {"country": "US"}


def test_the_answer_is_the_callers_own(cities: GeoTable) -> None:
    first = cities.locate("8.8.8.8")
    assert first is not None
    first["city"] = "Atlantis"

    assert cities.locate("8.8.8.8") == PARIS_INFO


def test_a_closed_table_still_knows_countries(tmp_path: Path) -> None:
    """Hits that are in flight while the service stops must not fail."""
    table = GeoTable(write_mmdb(tmp_path / "city.mmdb", RECORDS))
    assert table.locate("8.8.8.8") == PARIS_INFO

    table.close()
    table.close()

    assert table.locate("8.8.8.8") == {"country": "US"}


def test_a_file_that_is_not_there_stops_the_start_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError) as error:
        GeoTable(tmp_path / "missing.mmdb")

    assert str(error.value) == f"geo_database: {tmp_path}/missing.mmdb: No such file or directory"


def test_a_folder_is_no_city_database(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^geo_database: "):
        GeoTable(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x00" * 5000, b"\xab\xcd\xefMaxMind.com"]
)
def test_a_file_that_is_no_database_stops_the_start_in_one_line(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "city.mmdb"
    path.write_bytes(content)

    with pytest.raises(StartError) as error:
        GeoTable(path)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_database_with_a_hole_is_never_an_error_later(tmp_path: Path) -> None:
    """Any byte may be wrong on disk: the start stops, or lookups answer; nothing else."""
    path = write_mmdb(tmp_path / "city.mmdb", {"8.8.8.0/24": PARIS})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            table = GeoTable(path)
        except StartError:
            continue
        for ip in ("8.8.8.8", "2001:4860:4860::8888"):
            location = table.locate(ip)
            assert location is None or all(isinstance(value, str) for value in location.values())
        table.close()
