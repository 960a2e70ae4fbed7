"""
What no single setting can tell: do they fit together?

Checked once the environment has had its say, because it may supply the very value
that the YAML alone lacks, such as the keys of a service that is open to the network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ray_tracking.settings.model import Settings


def contradictions(settings: Settings, names: Mapping[str, str]) -> Iterator[str]:
    """
    Say what does not fit, one line each.

    Args:
        settings: Every single value of it is possible.
        names: How the user wrote a setting, where not by its own name.
    """

    def named(field: str) -> str:
        return names.get(field, field)

    yield from _buffer(settings, named("max_buffer_size"), named("backpressure_thresholds"))
    for field in ("shards", "writers"):
        asked = getattr(settings, field)
        if asked is not None and asked > settings.partitions:
            yield (
                f"{named(field)}: {asked} is not possible: must be at most "
                f"{named('partitions')} ({settings.partitions})"
            )
    yield from _redis(settings, names)
    if settings.preset == "production":
        for embedded, url in (
            (settings.embedded_postgres, "DATABASE_URL"),
            (settings.embedded_valkey, "REDIS_URL or REDIS_HOST"),
        ):
            if embedded:
                yield f"{url}: must be set: preset production starts no servers of its own"
    if not settings.api_keys and not is_loopback(settings.host):
        yield (
            f"{named('host')}: {settings.host!r} is not possible without api_keys: "
            "set TRACKING_API_KEYS (key:scope+scope), or bind to 127.0.0.1"
        )
    api_keys = [each.key.get_secret_value() for each in settings.api_keys]
    if len(set(api_keys)) < len(api_keys):
        yield f"{named('api_keys')}: holds the same key twice"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _buffer(settings: Settings, buffer_name: str, thresholds_name: str) -> Iterator[str]:
    emergency = settings.backpressure_thresholds.emergency
    if emergency <= settings.max_buffer_size:
        return
    if "max_buffer_size" in settings.model_fields_set:
        yield (
            f"{buffer_name}: {settings.max_buffer_size} is not possible: must be at least "
            f"{thresholds_name}.emergency ({emergency}), or lower that too"
        )
    else:
        yield (
            f"{thresholds_name}.emergency: {emergency} is not possible: must be at most "
            f"{buffer_name} ({settings.max_buffer_size}), or raise that too"
        )


def _redis(settings: Settings, names: Mapping[str, str]) -> Iterator[str]:
    def named(field: str) -> str:
        return names.get(field, field)

    if settings.redis_url is not None:
        for field in ("redis_host", "redis_port"):
            if getattr(settings, field) is not None:
                yield f"{named(field)}: not possible beside {named('redis_url')}: set one of them"
        in_url = urlsplit(settings.redis_url.get_secret_value()).password
        if settings.redis_password is not None and in_url:
            yield f"{named('redis_password')}: {named('redis_url')} already holds a password"
    elif settings.redis_host is None:
        for field in ("redis_port", "redis_password"):
            if getattr(settings, field) is not None:
                yield f"{named(field)}: means nothing without REDIS_HOST or REDIS_URL"
