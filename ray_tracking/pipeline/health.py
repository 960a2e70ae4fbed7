"""
How it is, from what the parts say of themselves.

Health follows progress, not processes: a part that answers but stands still is not
healthy, and Postgres being away is a reason to look, not a reason to refuse events. Each
component says what is wrong, which actors it is about, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.overview import mean_ms, memory_by_part, redis_status, worst_breaker
from ray_tracking.pipeline.progress import Since
from ray_tracking.pipeline.rows import iso_utc

#: Who has something to write and has not for so long stands still.
STALLED_AFTER_MS = 10_000
SLOW_MS = 200.0
MUCH_MEMORY_BYTES = 2 * 1024**3

_ORDER = ("healthy", "degraded", "unhealthy")
_MB = 1024 * 1024

_POSTGRES = "look at Postgres (DATABASE_URL); rows follow by themselves when it answers"
_REDIS = "look at Redis (REDIS_URL); spooled events follow by themselves when it answers"
_ACTOR = "the supervisor replaces it within seconds; if it stays away, see the Ray dashboard"


def readiness(shards: Sequence[Mapping[str, Any] | None]) -> str | None:
    """Why events cannot be taken now, or None if they can."""
    for index, shard in enumerate(shards):
        if shard is None:
            return f"shard {index} does not answer"
        if not shard["started"]:
            return f"shard {index} cannot reach the event log"
    return None


class HealthJudge:
    """The health page, again and again: it remembers since when each component is as it is."""

    def __init__(self) -> None:
        self._since = Since()

    def judge(self, snapshot: Mapping[str, Any], *, now_s: float) -> dict[str, Any]:
        """As :func:`overall_health`, and ``since`` of each component."""
        health = overall_health(snapshot, now_s=now_s)
        components = self._since.note(health["components"], health["timestamp"])
        return {**health, "components": components}


def overall_health(snapshot: Mapping[str, Any] | None, *, now_s: float) -> dict[str, Any]:
    """
    The health page.

    Args:
        snapshot: What the supervisor gathered, or None if it does not answer.
        now_s: Unix time.
    """
    timestamp = iso_utc(datetime.fromtimestamp(now_s, UTC))
    if snapshot is None:
        silent = _component("degraded", "it does not answer", ["supervisor"], _ACTOR)
        return {
            "timestamp": timestamp,
            "overall": "degraded",
            "components": {"supervisor": {**silent, "since": timestamp}},
        }
    components = {
        "redis": _redis(snapshot),
        "spool": _spool(snapshot),
        "database": _database(snapshot),
        "shards": _shards(snapshot["shards"], spools=_spool_takes(snapshot)),
        "writers": _writers(snapshot),
        "websocket": _websocket(snapshot),
        "queues": _queues(snapshot),
        "memory": _memory(snapshot),
        "performance": _performance(snapshot),
        "circuitBreakers": _breakers(snapshot),
    }
    worst = max((part["status"] for part in components.values()), key=_ORDER.index)
    return {"timestamp": timestamp, "overall": worst, "components": components}


def _redis(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"connections": redis_status(snapshot)}
    if not snapshot["redis_up"]:
        if _spool_takes(snapshot):
            reason = "the event log does not answer; events are spooled"
            return _component("degraded", reason, [], _REDIS, **more)
        reason = "the event log does not answer; nothing is accepted"
        return _component("unhealthy", reason, [], _REDIS, **more)
    if warnings := snapshot["warnings"]:
        action = "set what is named here in redis.conf: an acknowledged event must stay"
        return _component("degraded", "; ".join(warnings), [], action, **more)
    return _component("healthy", **more)


def _spool_takes(snapshot: Mapping[str, Any]) -> bool:
    """Whether what the log does not take can be spooled."""
    replicas = snapshot["replicas"]
    takes = [replica.spool_trouble is None for replica in replicas]
    return bool(snapshot["spool"]) and (any(takes) or not takes)


def _spool(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    events = snapshot["overview"].spooled
    for report in snapshot["replicas"]:
        if report.spool_trouble:
            return _component(
                "degraded",
                f"a replica cannot spool: {report.spool_trouble}",
                [f"ingress-{report.replica}"],
                "make room below TRACKING_DATA_DIR on its node, or raise TRACKING_SPOOL_MAX_BYTES",
                events=events,
            )
    if corrupt := sum(report.spool_corrupt for report in snapshot["replicas"]):
        return _component(
            "degraded",
            f"{corrupt} damaged records were set aside, in spool/corrupt",
            [
                f"ingress-{report.replica}"
                for report in snapshot["replicas"]
                if report.spool_corrupt
            ],
            "look at that node's disk; the files hold what could not be read",
            events=events,
        )
    shards = [shard for shard in snapshot["shards"] if shard is not None]
    if abandoned := sorted({id for shard in shards for id in shard["spools_abandoned"]}):
        return _component(
            "degraded",
            f"spools of nodes that are gone, not drained: {', '.join(abandoned)}",
            [],
            "bring the node's disk back, or: ray-tracking log forget-spool ID",
            events=events,
        )
    if events:
        action = "nothing, while the event log answers: they are drained; otherwise see redis"
        reason = "events wait on disk for the event log"
        return _component("degraded", reason, [], action, events=events)
    return _component("healthy", events=0)


def _database(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    if snapshot["postgres_up"]:
        return _component("healthy")
    why = snapshot.get("postgres_trouble")
    reason = "Postgres does not answer; events wait in the log" + (f": {why}" if why else "")
    return _component("degraded", reason, [], _POSTGRES)


def _websocket(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Live updates: beside the path of events, which goes on without them."""
    more = {"connectedClients": sum(report.connections for report in snapshot["replicas"])}
    broadcaster = snapshot["broadcaster"]
    if broadcaster is None:
        reason = "the broadcaster does not answer"
        return _component("degraded", reason, ["broadcaster"], _ACTOR, **more)
    if trouble := broadcaster["trouble"]:
        action = "events are stored all the same; see redis and database"
        return _component("degraded", trouble, ["broadcaster"], action, **more)
    return _component("healthy", **more)


def _queues(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    whole = snapshot["overview"]
    figures = {
        "logLag": whole.in_log, "parked": whole.parked, "spooled": whole.spooled,
        "buffered": whole.buffered,
    }  # fmt: skip
    level = snapshot["level"]
    more = {"level": level.value, "queues": figures}
    full = [shard["name"] for shard in snapshot["shards"] if shard and shard["log_full"]]
    if full:
        reason = "the event log is full (max_backlog_bytes)"
        action = "see writers and database; raise TRACKING_MAX_BACKLOG_BYTES if Redis has room"
        return _component("degraded", reason, full, action, **more)
    if level in (Level.CRITICAL, Level.EMERGENCY):
        action = "nothing is lost; if it does not shrink, see writers, database and the load"
        return _component("degraded", f"the backlog is {level.value}", [], action, **more)
    return _component("healthy", **more)


def _memory(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    by_part = memory_by_part(snapshot)
    used = sum(by_part.values())
    more: dict[str, Any] = {
        "heapUsed": round(used / _MB, 1),
        "heapTotal": round(snapshot["memory_total_bytes"] / _MB, 1),
    }
    if used <= MUCH_MEMORY_BYTES:
        return _component("healthy", **more)
    largest = max(by_part, key=lambda name: by_part[name])
    reason = f"{used / _MB:.0f} MB resident, most of it in {largest}"
    action = "lower TRACKING_DEDUPLICATION_CACHE_SIZE or TRACKING_MAX_BUFFER_SIZE, or use the "
    return _component("degraded", reason, [largest], action + "preset memory_optimized", **more)


def _performance(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    mean = mean_ms(snapshot["replicas"])
    more: dict[str, Any] = {"averageProcessingTime": mean}
    if mean <= SLOW_MS:
        return _component("healthy", **more)
    slowest = max(snapshot["replicas"], key=lambda report: mean_ms([report]))
    reason = f"an answer took {mean:.0f} ms on average in the last 60 s"
    action = "see redis (each append is fsynced), queues, and the load on the cores"
    return _component("degraded", reason, [f"ingress-{slowest.replica}"], action, **more)


def _breakers(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    breakers: dict[str, Any] = {
        name: worst_breaker(status for status in snapshot[part] if status is not None)
        for name, part in (("redis", "shards"), ("database", "writers"))
    }
    wrong = [name for name, breaker in breakers.items() if breaker["state"] != "closed"]
    if wrong:
        reason = f"the breaker before {' and '.join(wrong)} is open"
        actors = [
            status["name"]
            for part in ("shards", "writers")
            for status in snapshot[part]
            if status is not None and status["breaker"]["state"] != "closed"
        ]
        action = f"see {' and '.join(wrong)}; it closes by itself when calls go through again"
        return _component("degraded", reason, actors, action, **breakers)
    return _component("healthy", **breakers)


def _shards(shards: Sequence[Mapping[str, Any] | None], *, spools: bool) -> dict[str, Any]:
    known = [shard for shard in shards if shard is not None]
    if reason := readiness(shards):
        silent = [
            f"shard-{index}"
            for index, shard in enumerate(shards)
            if shard is None or not shard["started"]
        ]
        action = _ACTOR if None in shards else _REDIS
        return _component("degraded" if spools else "unhealthy", reason, silent, action)
    if blocked := sorted(number for shard in known for number in shard["blocked"]):
        partitions = ", ".join(map(str, blocked))
        return _component(
            "unhealthy",
            f"a gap in the log of partition {partitions}",
            [shard["name"] for shard in known if shard["blocked"]],
            "find out what Redis has lost, then: ray-tracking log gaps, log accept-gap",
        )
    early = [s["name"] for s in known if s["dedup_effective_ms"] < s["dedup_window_ms"]]
    if early:
        reason = "ids were forgotten before their window was over"
        action = "raise TRACKING_DEDUPLICATION_CACHE_SIZE, or shorten the window"
        return _component("degraded", reason, early, action)
    return _component("healthy")


def _writers(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    writers, postgres_up_ms = snapshot["writers"], snapshot["postgres_up_ms"]
    more = {"queued": sum(writer["queued_events"] for writer in writers if writer)}
    silent = [f"writer-{index}" for index, writer in enumerate(writers) if writer is None]
    action = "Postgres answers, so look for locks in pg_stat_activity; the cure that always works: "
    action += "end its process, its successor goes on where it was"
    for lane, stalled_ms in snapshot["stalled_ms"].items():
        if min(stalled_ms, postgres_up_ms) > STALLED_AFTER_MS:
            reason = f"nothing of the lane {lane} became rows for {stalled_ms / 1000:.0f} s"
            troubled = [writer["name"] for writer in writers if writer and writer["trouble"]]
            why = next((w["trouble"] for w in writers if w and w["trouble"]), None)
            reason += f": {why}" if why else ""
            return _component("unhealthy", reason, silent or troubled, action, **more)
    for writer in writers:
        if writer and min(writer["stalled_ms"], postgres_up_ms) > STALLED_AFTER_MS:
            name, why = writer["name"], writer["trouble"] or "no reason given"
            reason = f"{name} makes no progress in the lane {writer['stalled_lane']}: {why}"
            return _component("unhealthy", reason, [name], action, **more)
    if silent:
        return _component("degraded", "a writer does not answer", silent, _ACTOR, **more)
    for writer in writers:
        if writer["trouble"]:
            return _component("degraded", writer["trouble"], [writer["name"]], _POSTGRES, **more)
    return _component("healthy", **more)


def _component(
    status: str,
    reason: str | None = None,
    parts: Sequence[str] = (),
    action: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    if reason is None:
        return {"status": status, **more}
    return {"status": status, **more, "error": reason, "parts": list(parts), "action": action}
