"""
Where is an address? Read from tables on this machine; no address ever leaves it.

The country comes from ``iptocc``, bundled: the country that the address is registered
in, which is right for about 95 of 100 IPv4 addresses. A user may name a city database
of their own in MaxMind's format (GeoLite2-City, DB-IP City); its country goes before
ours, and region, city and time zone come from nowhere else.

Addresses that are not public (private, loopback, link-local, documentation,
multicast) have no location. No text makes :meth:`GeoTable.locate` raise.

The city database is mapped into memory. Replace it by renaming a new file over it, as
``geoipupdate`` does, and restart; writing into the file in place would end the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import iptocc
import maxminddb

from ray_tracking.errors import StartError

MAX_ADDRESSES_KEPT: Final = 10_000
# The longest textual IPv6 address has 45 characters, without a zone.
_MAX_ADDRESS_CHARS: Final = 64
_MAX_VALUE_CHARS: Final = 2048
# Registered by a region, not by a country.
_NOT_COUNTRIES: Final = frozenset({"AP", "EU", "ZZ"})


class GeoTable:
    """
    The tables, open. Answers for the last 10,000 addresses are kept.

    Args:
        city_database: A file in MaxMind's format, or None for countries only.

    Raises:
        StartError: The file cannot be read as such a database. One line.
    """

    def __init__(self, city_database: Path | None = None) -> None:
        self._cities = _open(city_database) if city_database is not None else None
        self._locate_kept = lru_cache(maxsize=MAX_ADDRESSES_KEPT)(self._locate)

    def locate(self, ip: str) -> dict[str, str] | None:
        """``{country, region, city, timezone}`` as far as known, or None if nothing is."""
        # Before the cache, so that it holds nothing long.
        if len(ip) > _MAX_ADDRESS_CHARS:
            return None
        known = self._locate_kept(ip)
        # A copy: the kept answer serves other events too.
        return dict(known) if known else None

    def close(self) -> None:
        """Let go of the city database. What is asked later gets countries only."""
        cities, self._cities = self._cities, None
        self._locate_kept.cache_clear()
        if cities is not None:
            cities.close()

    def _locate(self, text: str) -> Mapping[str, str]:
        address = _public(text)
        if address is None:
            return {}
        location = self._in_cities(address)
        if "country" not in location:
            country = iptocc.country_code(str(address))
            if country and country not in _NOT_COUNTRIES:
                location["country"] = country
        return location

    def _in_cities(self, address: IPv4Address | IPv6Address) -> dict[str, str]:
        if self._cities is None:
            return {}
        try:
            record = self._cities.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            # An IPv6 address in a database of IPv4, or one broken record.
            return {}
        fields = {
            "country": _text(record, "country", "iso_code"),
            "region": _text(record, "subdivisions", 0, "names", "en")
            or _text(record, "subdivisions", 0, "iso_code"),
            "city": _text(record, "city", "names", "en"),
            "timezone": _text(record, "location", "time_zone"),
        }
        return {name: value for name, value in fields.items() if value}


def _open(path: Path) -> maxminddb.Reader:
    try:
        return maxminddb.open_database(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartError(f"geo_database: {path}: {reason}") from error
    except (ValueError, maxminddb.InvalidDatabaseError) as error:
        raise StartError(
            f"geo_database: {path}: not a MaxMind database, or a damaged one; fetch it again"
        ) from error


def _public(text: str) -> IPv4Address | IPv6Address | None:
    """The address, in its IPv4 form where it has one, or None if it has no place."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address if address.is_global and not address.is_multicast else None


def _text(record: object, *path: str | int) -> str | None:
    """The string at ``path``, or None: the file is the user's, and so is its layout."""
    for step in path:
        if isinstance(record, dict):
            record = record.get(step)
        elif isinstance(record, list) and isinstance(step, int) and len(record) > step:
            record = record[step]
        else:
            return None
    return record[:_MAX_VALUE_CHARS] if isinstance(record, str) else None
