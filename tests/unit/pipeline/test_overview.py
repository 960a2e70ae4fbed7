"""The books, the backlog, and who says what."""

from __future__ import annotations

from typing import Any

from ray_tracking.pipeline.overview import (
    Circuits,
    LastSaid,
    Overview,
    ReplicaReport,
    overview,
    worst_breaker,
)


def shard(name: str, high: int, normal: int, parked: int, buffered: int = 0) -> dict[str, Any]:
    totals = {"high": high, "normal": normal, "parked": parked}
    return {"name": name, "started": True, "totals": totals, "buffered": buffered}


def writer(high: int, normal: int, parked: int, **books: int) -> dict[str, Any]:
    stored = {"high": high, "normal": normal, "parked": parked}
    whole = {"rows": 0, "dead": 0, "discarded": 0, "missing": 0} | books
    return {"name": "writer-0", "stored": stored, "books": whole}


def report(name: str, *, spooled: int, buffered: int) -> ReplicaReport:
    return ReplicaReport(
        replica=name, buffered=buffered, spooled=spooled, spool_bytes=0, spool_corrupt=0,
        unconfirmed=2, lost=1,
    )  # fmt: skip


def adds_up(whole: Overview) -> bool:
    ended = whole.rows + whole.dead + whole.discarded + whole.missing
    return whole.accepted == ended + whole.in_log + whole.parked + whole.spooled


def test_the_books_add_up() -> None:
    shards = [shard("shard-0", 5, 100, 20, 7), shard("shard-1", 0, 50, 0, 1)]
    writers = [writer(5, 90, 12, rows=100, dead=3, discarded=2, missing=2)]
    replicas = [report("a", spooled=30, buffered=4), report("b", spooled=0, buffered=0)]

    whole = overview(shards, writers, replicas)

    assert whole == Overview(
        accepted=205, rows=100, dead=3, discarded=2, missing=2, in_log=60, parked=8, spooled=30,
        buffered=12,
    )  # fmt: skip
    assert adds_up(whole)


def test_what_is_parked_or_spooled_is_no_backlog() -> None:
    """It waits because it is meant to, or where no level can help it."""
    whole = overview(
        [shard("shard-0", 1, 10, 1000, 5)],
        [writer(0, 4, 0)],
        [report("a", spooled=500, buffered=3)],
    )

    assert whole.backlog == 1 + 6 + 5 + 3


def test_before_the_first_event_everything_is_zero() -> None:
    whole = overview([], [], [])

    assert whole.accepted == whole.backlog == 0


def test_a_silent_part_still_owns_its_events() -> None:
    said = LastSaid()
    first, second = shard("shard-0", 1, 1, 1), shard("shard-1", 2, 2, 2)
    said([first, second])

    assert list(said([None, second | {"buffered": 9}])) == [first, second | {"buffered": 9}]


def test_a_part_that_has_not_started_knows_nothing_yet() -> None:
    said = LastSaid()
    before = shard("shard-0", 1, 1, 1)
    said([before])

    assert list(said([shard("shard-0", 0, 0, 0) | {"started": False}])) == [before]
    assert list(LastSaid()([{"name": "writer-0", "started": False}])) == []


def test_of_several_breakers_the_worst_is_shown() -> None:
    def status(state: str) -> dict[str, Any]:
        return {"breaker": {"state": state, "failures": 0, "openedAt": None}}

    assert worst_breaker([status("closed"), status("open"), status("half_open")])["state"] == "open"
    assert worst_breaker([status("closed"), status("half_open")])["state"] == "half_open"
    assert worst_breaker([])["state"] == "closed"


def breaker(state: str) -> dict[str, Any]:
    return {"breaker": {"state": state, "failures": 0, "openedAt": None}}


def test_a_breaker_is_told_of_when_it_opens_and_when_it_is_closed_again() -> None:
    """The first of several opens it, the last one closes it; half open is not closed."""
    circuits = Circuits()
    told = [
        circuits.update({"redis": map(breaker, states), "database": [breaker("closed")]})
        for states in (
            ("closed", "closed"),
            ("closed", "open"),
            ("open", "open"),
            ("closed", "half_open"),
            ("closed", "closed"),
            ("closed", "closed"),
        )
    ]
    opened, closed = ("circuit_opened", {"name": "redis"}), ("circuit_closed", {"name": "redis"})
    assert told == [[], [opened], [], [], [closed], []]


def test_of_silent_parts_nothing_is_known() -> None:
    circuits = Circuits()
    assert circuits.update({"database": [breaker("open")]}) != []
    assert circuits.update({"database": [None]}) == []
    assert circuits.update({"database": [breaker("closed"), None]}) != []
