"""
What stands beside the log in Redis, and whether that Redis may hold a log at all.

Beside the log: the number of partitions and the secret of the identity hash, both
chosen at the first start and never changed, and the assignment of partitions to shards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ray_tracking.errors import StartError

_MINIMUM_VERSION = (6, 2)


class LogIdentity(NamedTuple):
    """What the log was made with."""

    partitions: int
    secret: bytes


class Assignment(NamedTuple):
    """Which shard owns which partitions. A later version replaces an earlier one."""

    version: int
    shards: dict[str, list[int]]


async def check_server(redis: Redis, *, refuse: bool) -> list[str]:
    """
    Check that the server keeps what it acknowledges.

    Args:
        redis: The server.
        refuse: Whether an unsafe server stops the start, or is only reported.

    Returns:
        What is not as it should be, for the health report.

    Raises:
        StartError: If it cannot be reached, is too old, or is unsafe and we refuse.
    """
    try:
        info: Mapping[str, Any] = await redis.info("server")
        values = await _config(redis)
    except (RedisError, OSError, TimeoutError) as error:
        raise StartError(f"Redis cannot be reached (REDIS_URL): {error}") from None
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _MINIMUM_VERSION:
        raise StartError(f"Redis 6.2 or later is needed (REDIS_URL); this is {version}")
    if values is None:
        wrong = ["it forbids CONFIG, so nobody knows whether it keeps what it acknowledges"]
        mend = "set redis_safety (TRACKING_REDIS_SAFETY) to warn if you are sure that it does"
    else:
        unsafe = {
            name: wanted
            for name, wanted in (
                ("appendonly", "yes"),
                ("maxmemory-policy", "noeviction"),
                ("no-appendfsync-on-rewrite", "no"),
            )
            if values.get(name) != wanted
        }
        if values.get("appendfsync") == "no":
            unsafe["appendfsync"] = "always"
        wrong = [f"{name} is {values.get(name)}" for name in unsafe]
        mend = "run " + "; ".join(
            f"redis-cli CONFIG SET {name} {wanted}" for name, wanted in unsafe.items()
        )
    if wrong and refuse:
        raise StartError(f"Redis can lose acknowledged events ({', '.join(wrong)}): {mend}")
    if values is not None and values.get("appendfsync") == "everysec":
        wrong.append("appendfsync is everysec: a power cut can lose the last second")
    return wrong


async def _config(redis: Redis) -> dict[str, str] | None:
    names = ("appendonly", "appendfsync", "maxmemory-policy", "no-appendfsync-on-rewrite")
    values: dict[str, str] = {}
    try:
        for name in names:
            for key, value in (await redis.config_get(name)).items():
                values[_text(key)] = _text(value)
    except ResponseError:
        return None
    return values


async def identify(redis: Redis, prefix: str, *, partitions: int, secret: bytes) -> LogIdentity:
    """
    What the log was made with; at the first start, the arguments.

    Raises:
        StartError: If it was made for another number of partitions.
    """
    key = f"{prefix}meta"
    await redis.hsetnx(key, "secret", secret)
    await redis.hsetnx(key, "partitions", partitions)
    stored: dict[bytes, bytes] = await redis.hgetall(key)
    identity = LogIdentity(int(stored[b"partitions"]), stored[b"secret"])
    if identity.partitions != partitions:
        raise StartError(
            f"the log was made for {identity.partitions} partitions; set partitions "
            f"(TRACKING_PARTITIONS) to {identity.partitions}, or use another redis_prefix"
        )
    return identity


async def is_identified(redis: Redis, prefix: str) -> bool:
    """Whether the log says what it was made with."""
    return bool(await redis.exists(f"{prefix}meta"))


async def read_assignment(redis: Redis, prefix: str) -> Assignment | None:
    """The assignment in force, or None before the first."""
    raw = await redis.get(f"{prefix}assignment")
    return Assignment(**json.loads(raw)) if raw else None


async def assign(redis: Redis, prefix: str, shards: dict[str, list[int]]) -> Assignment:
    """Store who owns what, as a new version where it differs from the one in force."""
    current = await read_assignment(redis, prefix)
    if current is not None and current.shards == shards:
        return current
    new = Assignment(current.version + 1 if current else 1, shards)
    await redis.set(f"{prefix}assignment", json.dumps(new._asdict()))
    return new


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
