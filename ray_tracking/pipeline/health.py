"""
How it is, from what the parts say of themselves.

Health follows progress, not processes: a part that answers but stands still is not
healthy, and Postgres being away is a reason to look, not a reason to refuse events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.overview import worst_breaker
from ray_tracking.pipeline.rows import iso_utc

#: A writer that has something to write and has not for so long stands still.
STALLED_AFTER_MS = 10_000

_ORDER = ("healthy", "degraded", "unhealthy")


def readiness(shards: Sequence[Mapping[str, Any] | None]) -> str | None:
    """Why events cannot be taken now, or None if they can."""
    for index, shard in enumerate(shards):
        if shard is None:
            return f"shard {index} does not answer"
        if not shard["started"]:
            return f"shard {index} cannot reach the event log"
    return None


def overall_health(snapshot: Mapping[str, Any] | None, *, now_s: float) -> dict[str, Any]:
    """
    The health page.

    Args:
        snapshot: What the supervisor gathered, or None if it does not answer.
        now_s: Unix time.
    """
    timestamp = iso_utc(datetime.fromtimestamp(now_s, UTC))
    if snapshot is None:
        return {
            "timestamp": timestamp,
            "overall": "degraded",
            "components": {"supervisor": _component("degraded", "it does not answer")},
        }
    components = {
        "redis": _redis(snapshot),
        "spool": _spool(snapshot),
        "database": _component("healthy")
        if snapshot["postgres_up"]
        else _component("degraded", "Postgres does not answer; events wait in the log"),
        "shards": _shards(snapshot["shards"], spools=_spool_takes(snapshot)),
        "writers": _writers(snapshot["writers"], postgres_up=snapshot["postgres_up"]),
        "websocket": _websocket(snapshot),
        "queues": _queues(snapshot),
        "circuitBreakers": _breakers(snapshot),
    }
    worst = max((part["status"] for part in components.values()), key=_ORDER.index)
    return {"timestamp": timestamp, "overall": worst, "components": components}


def _redis(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    if not snapshot["redis_up"]:
        if _spool_takes(snapshot):
            return _component("degraded", "the event log does not answer; events are spooled")
        return _component("unhealthy", "the event log does not answer; nothing is accepted")
    if snapshot["warnings"]:
        return _component("degraded", "; ".join(snapshot["warnings"]))
    return _component("healthy")


def _spool_takes(snapshot: Mapping[str, Any]) -> bool:
    """Whether what the log does not take can be spooled."""
    replicas = snapshot["replicas"]
    takes = [replica.spool_trouble is None for replica in replicas]
    return bool(snapshot["spool"]) and (any(takes) or not takes)


def _spool(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    events = snapshot["overview"].spooled
    for report in snapshot["replicas"]:
        if report.spool_trouble:
            reason = f"a replica cannot spool: {report.spool_trouble}"
            return _component("degraded", reason, events=events)
    if corrupt := sum(report.spool_corrupt for report in snapshot["replicas"]):
        reason = f"{corrupt} damaged records were set aside, in spool/corrupt"
        return _component("degraded", reason, events=events)
    shards = [shard for shard in snapshot["shards"] if shard is not None]
    if abandoned := sorted({id for shard in shards for id in shard["spools_abandoned"]}):
        reason = f"spools of nodes that are gone, not drained: {', '.join(abandoned)}"
        return _component("degraded", reason, events=events)
    if events:
        return _component("degraded", "events wait on disk for the event log", events=events)
    return _component("healthy", events=0)


def _websocket(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Live updates: beside the path of events, which goes on without them."""
    connected = sum(report.connections for report in snapshot["replicas"])
    broadcaster = snapshot["broadcaster"]
    trouble = "the broadcaster does not answer" if broadcaster is None else broadcaster["trouble"]
    if trouble:
        return _component("degraded", trouble, connectedClients=connected)
    return _component("healthy", connectedClients=connected)


def _queues(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    whole = snapshot["overview"]
    figures = {
        "logLag": whole.in_log, "parked": whole.parked, "spooled": whole.spooled,
        "buffered": whole.buffered,
    }  # fmt: skip
    level = snapshot["level"]
    more = {"level": level.value, "queues": figures}
    if any(shard and shard["log_full"] for shard in snapshot["shards"]):
        return _component("degraded", "the event log is full (max_backlog_bytes)", **more)
    if level in (Level.CRITICAL, Level.EMERGENCY):
        return _component("degraded", f"the backlog is {level.value}", **more)
    return _component("healthy", **more)


def _breakers(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    breakers: dict[str, Any] = {
        name: worst_breaker(status for status in snapshot[part] if status is not None)
        for name, part in (("redis", "shards"), ("database", "writers"))
    }
    wrong = [name for name, breaker in breakers.items() if breaker["state"] != "closed"]
    if wrong:
        reason = f"the breaker before {' and '.join(wrong)} is open"
        return _component("degraded", reason, **breakers)
    return _component("healthy", **breakers)


def _shards(shards: Sequence[Mapping[str, Any] | None], *, spools: bool) -> dict[str, Any]:
    if reason := readiness(shards):
        return _component("degraded" if spools else "unhealthy", reason)
    known = [shard for shard in shards if shard is not None]
    blocked = sorted(number for shard in known for number in shard["blocked"])
    if blocked:
        partitions = ", ".join(map(str, blocked))
        return _component("unhealthy", f"a gap in the log of partition {partitions}")
    if any(shard["dedup_effective_ms"] < shard["dedup_window_ms"] for shard in known):
        return _component("degraded", "ids were forgotten before their window was over")
    return _component("healthy")


def _writers(writers: Sequence[Mapping[str, Any] | None], *, postgres_up: bool) -> dict[str, Any]:
    queued = sum(writer["queued_events"] for writer in writers if writer)
    for writer in writers:
        if writer is None:
            return _component("degraded", "a writer does not answer", queued=queued)
        stalled = writer["queued_events"] and writer["idle_ms"] > STALLED_AFTER_MS
        if stalled and postgres_up:
            reason = f"{writer['name']} makes no progress: {writer['trouble'] or 'no reason given'}"
            return _component("unhealthy", reason, queued=queued)
        if writer["trouble"]:
            return _component("degraded", writer["trouble"], queued=queued)
    return _component("healthy", queued=queued)


def _component(status: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, **more} | ({"error": reason} if reason else {})
