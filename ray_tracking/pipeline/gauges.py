"""
Every metric: its name, what it says, and its value, from what the supervisor has gathered.

``http.metrics`` shows all of them to Prometheus, ``actors.ray_gauges`` the gauges in Ray's own
metrics, under the same names. None has a label whose values grow with the data.

The books close: accepted = rows + dead + discarded + missing + in log + parked + spooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.overview import Overview, memory_by_part, worst_breaker

PREFIX = "ray_tracking"
_BREAKER_STATES = ("closed", "half_open", "open")
_HEALTH = ("healthy", "degraded", "unhealthy")

_BOOKS = {
    "accepted": "Events that were acknowledged, or are on their way to a row.",
    "rows": "Events that became rows.",
    "dead": "Events that became dead letters, each time.",
    "discarded": "Dead letters sent again that were dead no more, and events of erased leads.",
    "missing": "Events missing from the log, that an operator went on without.",
}
_WAITING = {
    "in_log": "Events in the log that are not rows yet, but for the parked.",
    "parked": "Hits over their campaign's rate, waiting for its budget.",
    "spooled": "Events that wait on a node's disk for the log.",
    "buffered": "Events in memory, not acknowledged.",
}
_COUNTED = {
    "acknowledged": "Events that replicas have acknowledged, since the supervisor began.",
    "duplicates": "Events that were recognised as duplicates.",
    "invalid": "Events that were refused as not valid.",
    "limited": "Events that were refused because their campaign was over its rate.",
    "overloaded": "Events that were refused because a buffer or the log was full or away.",
    "unconfirmed": "Hits answered before they were durable.",
    "lost": "Hits that neither log nor spool could take.",
    "dedup_evicted_early": "Ids that were forgotten before their window was over.",
}
#: What a figure of Counted is called, where not ``<name>_events``.
_NAMES = {"duplicates": "duplicate_events", "dedup_evicted_early": "ids_evicted_early"}


class Kind(StrEnum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Family(NamedTuple):
    """One metric, with a value for each set of labels."""

    name: str
    kind: Kind
    text: str
    #: Of each label set; the names of the labels are the same in all.
    samples: list[tuple[dict[str, str], float]]


def families(snapshot: Mapping[str, Any]) -> Iterator[Family]:
    """
    All metrics but the histogram of answers.

    Args:
        snapshot: What the supervisor says (:meth:`Supervisor.health`).
    """
    yield from _flow(snapshot)
    yield from _state(snapshot)
    yield from _parts(snapshot)


def _flow(snapshot: Mapping[str, Any]) -> Iterator[Family]:
    """What goes through, and what became of it."""
    whole: Overview = snapshot["overview"]
    counted: Mapping[str, int] = snapshot["counted"]
    for name, text in _BOOKS.items():
        yield _counter(f"{name}_events", text, getattr(whole, name))
    for name, text in _WAITING.items():
        yield _gauge(f"{name}_events", text, getattr(whole, name))
    for name, text in _COUNTED.items():
        yield _counter(_NAMES.get(name, f"{name}_events"), text, counted[name])
    yield _counter("batches", "Transactions in which rows were stored.", counted["batches"])
    writers = _known(snapshot, "writers")
    yield _gauge(
        "unaccounted_events",
        "Acknowledged and not in the books. Above zero for longer than a second: events are gone.",
        snapshot["unaccounted"],
    )
    yield _gauge(
        "uncounted_events",
        "Rows that are not in the figures of their campaign yet, about.",
        sum(writer["rollups"]["behind"] for writer in writers),
    )
    yield _gauge(
        "backlog_age_seconds",
        "How long the event waits that waits longest for its row, but for the parked.",
        max(
            [*snapshot["stalled_ms"].values(), *(writer["oldest_ms"] for writer in writers)],
            default=0,
        )
        / 1000,
    )
    yield Family(
        f"{PREFIX}_stalled_seconds",
        Kind.GAUGE,
        "For how long nothing of a lane became rows although something waited.",
        [({"lane": str(lane)}, ms / 1000) for lane, ms in snapshot["stalled_ms"].items()],
    )
    if (letters := snapshot["dead_letters"]) is not None:
        yield _gauge("dead_letters", "Dead letters that wait for somebody.", letters)
    yield _gauge("throughput_events_per_second", "Accepted, over the last 5 s.", snapshot["per_s"])


def _state(snapshot: Mapping[str, Any]) -> Iterator[Family]:
    """How it works now."""
    level: Level = snapshot["level"]
    yield _gauge("backpressure_level", "0 normal, 1 warning, 2 critical, 3 emergency.",
                 level.severity)  # fmt: skip
    yield Family(
        f"{PREFIX}_processing_mode",
        Kind.GAUGE,
        "1 for the mode in force.",
        [({"mode": mode.value}, float(mode is snapshot["mode"])) for mode in Mode],
    )
    # All follow the load: pipeline/batching.py, pipeline/write.py, and GatherPolicy in
    # pipeline/gather.py.
    writers = _known(snapshot, "writers")
    yield _gauge(
        "flush_events",
        "How many events a writer stores in one transaction at most now.",
        min((writer["batch_events"] for writer in writers), default=0),
    )
    yield _gauge(
        "flush_linger_seconds",
        "How long a writer lets events wait for company now, but for those with priority.",
        max((writer["linger_ms"] for writer in writers), default=0) / 1000,
    )
    yield _gauge(
        "linger_seconds",
        "How far apart a replica begins its calls to a shard now.",
        max((report.linger_s for report in snapshot["replicas"]), default=0.0),
    )
    yield Family(
        f"{PREFIX}_circuit_breaker",
        Kind.GAUGE,
        "0 closed, 1 half open, 2 open.",
        [
            ({"name": name}, _BREAKER_STATES.index(worst_breaker(_known(snapshot, part))["state"]))
            for name, part in (("redis", "shards"), ("database", "writers"))
        ],
    )
    for name, text in (("postgres", "Postgres"), ("redis", "Redis")):
        yield _gauge(f"{name}_up", f"Whether {text} answers.", float(snapshot[f"{name}_up"]))
    shards = _known(snapshot, "shards")
    yield _gauge("log_bytes", "How large the event log is.",
                 max((shard["log_bytes"] for shard in shards), default=0))  # fmt: skip
    yield _gauge("log_limit_bytes", "How large it may become.", snapshot["max_backlog_bytes"])
    yield _gauge("spool_bytes", "How large the spools are.",
                 sum(report.spool_bytes for report in snapshot["replicas"]))  # fmt: skip
    yield _gauge("live_connections", "Clients of live updates.",
                 sum(report.connections for report in snapshot["replicas"]))  # fmt: skip
    yield _gauge("remembered_ids", "Ids that duplicates are recognised by.",
                 sum(shard["dedup_ids"] for shard in shards))  # fmt: skip
    yield _gauge("uptime_seconds", "Since the supervisor began.", snapshot["uptime_s"])


def _parts(snapshot: Mapping[str, Any]) -> Iterator[Family]:
    """How each part is."""
    up = {f"shard-{n}": shard is not None for n, shard in enumerate(snapshot["shards"])}
    up |= {f"writer-{n}": writer is not None for n, writer in enumerate(snapshot["writers"])}
    up["broadcaster"] = snapshot["broadcaster"] is not None
    up |= {f"ingress-{report.replica}": True for report in snapshot["replicas"]}
    yield _by_part("part_up", "Whether a part answers.", up)
    yield _by_part("resident_bytes", "The memory of a process.", memory_by_part(snapshot))
    components = snapshot["health"]["components"]
    yield Family(
        f"{PREFIX}_health",
        Kind.GAUGE,
        "0 healthy, 1 degraded, 2 unhealthy.",
        [({"component": name}, _HEALTH.index(its["status"])) for name, its in components.items()],
    )


def _known(snapshot: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """What those that are not silent said."""
    return [status for status in snapshot[part] if status is not None]


def _by_part(name: str, text: str, values: Mapping[str, float]) -> Family:
    samples = [({"part": part}, float(value)) for part, value in values.items()]
    return Family(f"{PREFIX}_{name}", Kind.GAUGE, text, samples)


def _counter(name: str, text: str, value: float) -> Family:
    return Family(f"{PREFIX}_{name}", Kind.COUNTER, text, [({}, value)])


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(f"{PREFIX}_{name}", Kind.GAUGE, text, [({}, value)])
