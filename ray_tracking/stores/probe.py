"""Postgres and Redis as somebody finds them who has only an address: for ``doctor``."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ray_tracking.pipeline.doctor import ServerFacts
from ray_tracking.settings.masking import mask_url
from ray_tracking.stores import database

_WITHIN_S = 5.0
_POSTGRES = ("fsync", "full_page_writes", "synchronous_commit", "max_connections")
_REDIS = (
    "appendonly", "appendfsync", "maxmemory-policy", "no-appendfsync-on-rewrite", "maxmemory",
)  # fmt: skip


async def probe_postgres(url: str, schema: str) -> ServerFacts:
    """What a Postgres says of itself, or why it says nothing."""
    address = mask_url(url)
    try:
        connection = await database.connect(url, schema, "ray-tracking doctor")
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        return ServerFacts(address, trouble=_reason(error, url))
    try:
        began_s = time.monotonic()
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        took_s = time.monotonic() - began_s
        rows = await connection.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY($1)", list(_POSTGRES)
        )
        version = connection.get_server_version()
        return ServerFacts(
            address,
            version=(version.major, version.minor),
            settings={row["name"]: row["setting"] for row in rows},
            round_trip_ms=1000 * took_s,
            skew_s=now.timestamp() - (datetime.now(UTC).timestamp() - took_s / 2),
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        return ServerFacts(address, trouble=_reason(error, url))
    finally:
        await connection.close()


async def probe_redis(url: str) -> ServerFacts:
    """What a Redis or Valkey says of itself, or why it says nothing."""
    address = mask_url(url)
    redis: Redis = Redis.from_url(
        url, socket_timeout=_WITHIN_S, socket_connect_timeout=_WITHIN_S, decode_responses=True
    )
    try:
        info: Any = await redis.info("server")
        began_s = time.monotonic()
        seconds, microseconds = await redis.time()
        took_s = time.monotonic() - began_s
        version = str(info.get("valkey_version") or info.get("redis_version", "0"))
        return ServerFacts(
            address,
            version=tuple(int(part) for part in version.split(".")[:2]),
            settings=await _settings(redis),
            round_trip_ms=1000 * took_s,
            skew_s=seconds + microseconds / 1e6 - (time.time() - took_s / 2),
        )
    except (RedisError, OSError, TimeoutError) as error:
        return ServerFacts(address, trouble=_reason(error, url))
    finally:
        await redis.aclose()


async def _settings(redis: Redis) -> dict[str, str] | None:
    values: dict[str, str] = {}
    try:
        for name in _REDIS:
            values |= await redis.config_get(name)
    except ResponseError:
        return None
    return values


def _reason(error: BaseException, url: str) -> str:
    """What went wrong, without the URL that it may quote."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(url, mask_url(url))
