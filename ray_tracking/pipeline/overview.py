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
    duplicates: int = 0
    limited: int = 0
    overloaded: int = 0
    invalid: int = 0
    #: Of the last minute, and how long they took together.
    requests: int = 0
    request_ms: float = 0.0
    #: Clients of live updates.
    connections: int = 0
    rss_bytes: int = 0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Events, of the whole cluster. Counts since the log began, but for the last four."""

    accepted: int
    rows: int
    dead: int
    discarded: int
    missing: int
    in_log: int
    parked: int
    spooled: int
    buffered: int
    #: Since each replica began.
    unconfirmed: int
    lost: int

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
        unconfirmed=sum(replica.unconfirmed for replica in replicas),
        lost=sum(replica.lost for replica in replicas),
    )


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
