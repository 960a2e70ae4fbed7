"""
The whole in figures, from what each part says of itself: backlog, level and books.

The books: every event that was ever accepted has become a row, a dead letter, or was
discarded (a letter sent again twice); or it is missing from the log and an operator has
gone on without it; or it is in the log, parked, or in a spool. In the log is what shards
have appended and writers have not booked yet, so a figure below zero is a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ray_tracking.events import Lane
from ray_tracking.pipeline.traffic import BUCKETS_MS

#: What a part says of itself, or None while it is silent.
Status = Mapping[str, Any] | None


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an ingress replica says of itself, about once a second."""

    replica: str
    buffered: int
    spooled: int
    spool_bytes: int
    spool_corrupt: int
    unconfirmed: int
    lost: int
    #: Why its spool takes nothing, or None.
    spool_trouble: str | None = None
    #: How far apart its calls to a shard begin.
    linger_s: float = 0.0
    #: Since it began.
    acknowledged: int = 0
    duplicates: int = 0
    limited: int = 0
    overloaded: int = 0
    invalid: int = 0
    #: Answers by how long they took (traffic.BUCKETS_MS), and how long all took together.
    answers: list[int] = msgspec.field(default_factory=list)
    answer_ms: int = 0
    #: Of the last minute, and how long they took together.
    requests: int = 0
    request_ms: float = 0.0
    #: Clients of live updates.
    connections: int = 0
    rss_bytes: int = 0
    uptime_s: float = 0.0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Events, of the whole cluster. Counts since the log began, but for the last two."""

    accepted: int
    rows: int
    dead: int
    discarded: int
    missing: int
    in_log: int
    parked: int
    spooled: int
    buffered: int

    @property
    def backlog(self) -> int:
        """What the level of back-pressure is about: what waits and is not meant to."""
        return max(0, self.in_log) + self.buffered


class LastSaid:
    """Remembers the last word of each part, because a silent one still owns its events."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any]] = {}

    def __call__(self, statuses: Iterable[Status]) -> Sequence[Mapping[str, Any]]:
        """The last word of every part that ever spoke."""
        for status in statuses:
            if status is not None and status.get("started", True):
                self._known[status["name"]] = status
        return list(self._known.values())


#: What replicas count, as :class:`~ray_tracking.pipeline.growth.Growth` has it; and how their
#: answers took.
COUNTS = (
    "acknowledged", "duplicates", "limited", "overloaded", "invalid", "unconfirmed", "lost",
    "answer_ms", *(f"answers_{index}" for index in range(len(BUCKETS_MS) + 1)),
)  # fmt: skip


def counts(report: ReplicaReport) -> dict[str, int]:
    """What a replica has counted since it began, by the names of :data:`COUNTS`."""
    answers = {f"answers_{index}": count for index, count in enumerate(report.answers)}
    return dict.fromkeys(COUNTS, 0) | answers | {
        name: getattr(report, name) for name in COUNTS if not name.startswith("answers_")
    }  # fmt: skip


def overview(
    shards: Iterable[Mapping[str, Any]],
    writers: Iterable[Mapping[str, Any]],
    replicas: Iterable[ReplicaReport],
) -> Overview:
    """Add it all up."""
    shards, writers, replicas = list(shards), list(writers), list(replicas)
    appended = {lane: sum(shard["totals"][lane] for shard in shards) for lane in Lane}
    booked = {lane: sum(writer["stored"][lane] for writer in writers) for lane in Lane}
    spooled = sum(replica.spooled for replica in replicas)
    books = {
        name: sum(writer["books"][name] for writer in writers)
        for name in ("rows", "dead", "discarded", "missing")
    }
    return Overview(
        accepted=sum(appended.values()) + spooled,
        **books,
        in_log=sum(appended[lane] - booked[lane] for lane in (Lane.HIGH, Lane.NORMAL)),
        parked=appended[Lane.PARKED] - booked[Lane.PARKED],
        spooled=spooled,
        buffered=sum(shard["buffered"] for shard in shards)
        + sum(replica.buffered for replica in replicas),
    )


def mean_ms(replicas: Iterable[ReplicaReport]) -> float:
    """From a request to its answer, over the last minute."""
    replicas = list(replicas)
    requests = sum(report.requests for report in replicas)
    return round(sum(report.request_ms for report in replicas) / requests, 3) if requests else 0.0


def memory_by_part(snapshot: Mapping[str, Any]) -> dict[str, int]:
    """What each process takes, in bytes."""
    actors = [*snapshot["shards"], *snapshot["writers"], snapshot["broadcaster"]]
    memory = {status["name"]: status["rss_bytes"] for status in actors if status is not None}
    memory |= {f"ingress-{report.replica}": report.rss_bytes for report in snapshot["replicas"]}
    memory["supervisor"] = snapshot["rss_bytes"]
    return memory


def redis_status(snapshot: Mapping[str, Any]) -> dict[str, str]:
    """Who reaches Redis: the supervisor, the broadcaster that reads, the shards that append."""
    broadcaster = snapshot["broadcaster"]
    shards = [status for status in snapshot["shards"] if status is not None]
    stream = bool(shards) and all(
        shard["started"] and shard["breaker"]["state"] == "closed" for shard in shards
    )
    return {
        "main": _connected(snapshot["redis_up"]),
        "subscriber": _connected(broadcaster is not None and broadcaster["reading"]),
        "stream": _connected(stream),
    }


def _connected(is_so: bool) -> str:
    return "connected" if is_so else "disconnected"


class Circuits:
    """What is told of breakers, from how they are each time that somebody looks."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def update(self, servers: Mapping[str, Iterable[Status]]) -> list[tuple[str, dict[str, str]]]:
        """
        Take in how the breakers are now. One that is half open is not closed.

        Args:
            servers: The parts that have a breaker before each server, by its name. Of one whose
                parts are all silent, nothing is known.

        Returns:
            The name and the data of each event.
        """
        told = []
        for name, statuses in servers.items():
            known = [status for status in statuses if status is not None]
            is_open = worst_breaker(known)["state"] != "closed"
            if known and is_open != (name in self._open):
                self._open ^= {name}
                told.append(("circuit_opened" if is_open else "circuit_closed", {"name": name}))
        return told


def worst_breaker(statuses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the breakers before one server, the one that is in the worst state."""
    order = ("closed", "half_open", "open")
    breakers = [status["breaker"] for status in statuses]
    closed = {"state": "closed", "failures": 0, "openedAt": None}
    return dict(max(breakers, key=lambda breaker: order.index(breaker["state"]), default=closed))
