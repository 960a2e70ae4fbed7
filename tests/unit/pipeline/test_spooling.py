"""
What shards know of the spools: nothing is forgotten that an event in one may be compared
with, and a node that is gone does not hold everything up for ever.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from ray_tracking.pipeline.gather import pack
from ray_tracking.pipeline.spooling import (
    ABANDONED_MS,
    MARGIN_MS,
    SETTLE_MS,
    SpoolReport,
    SpoolWatch,
    decode_reports,
    encode_report,
    records,
)
from ray_tracking.stores.spool import MAX_PAYLOAD_BYTES
from tests.unit.pipeline.samples import NOW_MS, submission

HOUR_MS = 3_600_000


def report(floor_ms: int, *, events: int = 5, at_ms: int = NOW_MS) -> SpoolReport:
    return SpoolReport("node-1", floor_ms, events, 100 * events, at_ms)


def idle(at_ms: int) -> SpoolReport:
    """What a process says whose spool is empty."""
    return report(at_ms - MARGIN_MS, events=0, at_ms=at_ms)


def test_a_report_is_read_as_it_was_written() -> None:
    reports = {"a": report(NOW_MS - 5), "b": report(NOW_MS, events=0)}
    raw = {spool_id.encode(): encode_report(said) for spool_id, said in reports.items()}

    assert decode_reports(raw) == reports
    assert decode_reports({}) == {}


# -- floors ------------------------------------------------------------------


def test_without_a_spool_nothing_is_held_back() -> None:
    watch = SpoolWatch(NOW_MS)
    assert watch.floor_ms(NOW_MS + 7) == NOW_MS + 7
    watch.read({}, NOW_MS + 1000)
    assert watch.floor_ms(NOW_MS + 1000) == NOW_MS + 1000


def test_the_lowest_floor_counts_until_its_spool_is_forgotten() -> None:
    watch = SpoolWatch(NOW_MS)
    old, young = report(NOW_MS - 9000), report(NOW_MS - 20)
    watch.read({"old": old, "young": young}, NOW_MS)
    assert watch.floor_ms(NOW_MS) == NOW_MS - 9000

    watch.read({"young": young}, NOW_MS + 1000)
    assert watch.floor_ms(NOW_MS + 1000) == NOW_MS - 20
    watch.read({}, NOW_MS + 2000)
    assert watch.floor_ms(NOW_MS + 2000) == NOW_MS + 2000


def test_a_floor_rises_as_its_spool_is_drained() -> None:
    watch = SpoolWatch(NOW_MS)
    watch.read({"a": report(NOW_MS - 9000)}, NOW_MS)
    watch.read({"a": report(NOW_MS - 4000)}, NOW_MS + 1000)

    assert watch.floor_ms(NOW_MS + 1000) == NOW_MS - 4000


def test_a_floor_in_the_future_holds_nothing_back() -> None:
    """The clocks of two nodes differ."""
    watch = SpoolWatch(NOW_MS)
    watch.read({"a": report(NOW_MS + 60_000)}, NOW_MS)

    assert watch.floor_ms(NOW_MS) == NOW_MS


# -- the log out of reach ----------------------------------------------------


def after_an_outage(outage_ms: int) -> tuple[SpoolWatch, int]:
    """A watch that has just read again, with what was said before; and the time."""
    watch = SpoolWatch(NOW_MS - HOUR_MS)
    watch.read({"a": idle(NOW_MS)}, NOW_MS)
    for at_ms in range(NOW_MS + 1000, NOW_MS + outage_ms, max(1000, outage_ms // 20)):
        watch.unreadable()
        assert watch.floor_ms(at_ms) == NOW_MS - MARGIN_MS
    watch.unreadable()
    now_ms = NOW_MS + outage_ms
    watch.read({"a": idle(NOW_MS)}, now_ms)
    return watch, now_ms


@pytest.mark.parametrize("outage_ms", [1000, 60_000, HOUR_MS])
def test_while_the_log_is_out_of_reach_all_stays_as_it_was(outage_ms: int) -> None:
    """Spools are filling now, and nobody can say so; nor at once when the log is back."""
    watch, now_ms = after_an_outage(outage_ms)

    for wait_ms in (0, 1000, SETTLE_MS - 1):
        later_ms = now_ms + wait_ms
        watch.read({"a": idle(later_ms), "new": idle(later_ms)}, later_ms)
        assert watch.floor_ms(later_ms) == NOW_MS - MARGIN_MS


def test_when_everybody_has_had_time_to_report_the_floors_count_again() -> None:
    watch, now_ms = after_an_outage(HOUR_MS)
    settled_ms = now_ms + SETTLE_MS
    spooled = report(NOW_MS + 500, at_ms=settled_ms)
    watch.read({"a": idle(settled_ms), "b": spooled}, settled_ms)

    assert watch.floor_ms(settled_ms) == NOW_MS + 500
    watch.read({"a": idle(settled_ms + 1000)}, settled_ms + 1000)
    assert watch.floor_ms(settled_ms + 1000) == settled_ms + 1000 - MARGIN_MS


def test_a_log_that_goes_again_while_all_settles_begins_the_wait_anew() -> None:
    """What was spooled before the first time may still not be reported."""
    watch, now_ms = after_an_outage(60_000)
    watch.unreadable()
    back_ms = now_ms + SETTLE_MS + 5000
    watch.read({}, back_ms)

    assert watch.floor_ms(back_ms) == NOW_MS - MARGIN_MS
    watch.read({}, back_ms + SETTLE_MS - 1)
    assert watch.floor_ms(back_ms + SETTLE_MS - 1) == NOW_MS - MARGIN_MS
    watch.read({}, back_ms + SETTLE_MS)
    assert watch.floor_ms(back_ms + SETTLE_MS) == back_ms + SETTLE_MS


def test_an_outage_later_on_is_one_of_its_own() -> None:
    watch, now_ms = after_an_outage(60_000)
    watch.read({}, now_ms + SETTLE_MS)
    read_ms = now_ms + HOUR_MS
    watch.read({}, read_ms)
    watch.unreadable()

    assert watch.floor_ms(read_ms + 1000) == read_ms - MARGIN_MS


def test_a_shard_that_never_reached_the_log_holds_back_from_its_start() -> None:
    watch = SpoolWatch(NOW_MS)
    watch.unreadable()
    watch.read({}, NOW_MS + HOUR_MS)

    assert watch.floor_ms(NOW_MS + HOUR_MS) == NOW_MS - MARGIN_MS


def test_a_lower_floor_than_that_of_the_outage_counts() -> None:
    watch, now_ms = after_an_outage(60_000)
    watch.read({"a": report(NOW_MS - HOUR_MS)}, now_ms + 1000)

    assert watch.floor_ms(now_ms + 1000) == NOW_MS - HOUR_MS


# -- nodes that are gone -------------------------------------------------------


def test_a_spool_that_nobody_reports_any_more_is_given_up() -> None:
    """Its events are on the disk of a node that is gone: nothing is held for it for ever."""
    watch = SpoolWatch(NOW_MS)
    said = {"a": report(NOW_MS - 9000)}
    for at_ms in range(NOW_MS, NOW_MS + ABANDONED_MS + 1, 60_000):
        watch.read(said, at_ms)
        assert watch.abandoned == []
        assert watch.floor_ms(at_ms) == NOW_MS - 9000
    late_ms = NOW_MS + ABANDONED_MS + 1
    watch.read(said, late_ms)

    assert watch.abandoned == ["a"]
    assert watch.floor_ms(late_ms) == late_ms


def test_one_that_is_reported_is_not_given_up_however_old_its_events_are() -> None:
    watch = SpoolWatch(NOW_MS)
    for at_ms in range(NOW_MS, NOW_MS + HOUR_MS, 60_000):
        watch.read({"a": report(NOW_MS - 9000, at_ms=at_ms)}, at_ms)
    assert watch.abandoned == []
    assert watch.floor_ms(at_ms) == NOW_MS - 9000


def test_one_that_is_reported_again_counts_again() -> None:
    """The node was away, and is back with its disk."""
    watch = SpoolWatch(NOW_MS)
    watch.read({"a": report(NOW_MS - 9000)}, NOW_MS)
    watch.read({"a": report(NOW_MS - 9000)}, NOW_MS + HOUR_MS)
    assert watch.abandoned == ["a"]
    back_ms = NOW_MS + HOUR_MS + 1000
    watch.read({"a": report(NOW_MS - 9000, at_ms=back_ms)}, back_ms)

    assert watch.abandoned == []
    assert watch.floor_ms(back_ms) == NOW_MS - 9000


def test_an_empty_spool_that_nobody_reports_is_not_lost_but_stale() -> None:
    """Its process ended in an outage, and could not say that it removed it."""
    watch = SpoolWatch(NOW_MS)
    said = {"a": idle(NOW_MS), "b": report(NOW_MS), "c": idle(NOW_MS + HOUR_MS)}
    watch.read(said, NOW_MS)
    watch.read(said | {"c": idle(NOW_MS)}, NOW_MS + ABANDONED_MS)
    assert watch.stale == []
    watch.read(said, NOW_MS + HOUR_MS)

    assert watch.stale == ["a"]
    assert watch.abandoned == ["b"]
    assert watch.floor_ms(NOW_MS + HOUR_MS) == NOW_MS + HOUR_MS - MARGIN_MS


def test_after_an_hour_without_the_log_nobody_is_given_up() -> None:
    """Nobody could report in it."""
    watch = SpoolWatch(NOW_MS)
    said = {"a": report(NOW_MS - 60_000)}
    watch.read(said, NOW_MS)
    watch.unreadable()
    back_ms = NOW_MS + HOUR_MS
    assert watch.abandoned == watch.stale == []
    assert watch.floor_ms(back_ms) == NOW_MS - 60_000
    watch.read(said, back_ms)

    assert watch.abandoned == []
    assert watch.floor_ms(back_ms) == NOW_MS - 60_000
    watch.read(said, back_ms + ABANDONED_MS)
    assert watch.abandoned == []
    watch.read(said, back_ms + ABANDONED_MS + 1)
    assert watch.abandoned == ["a"]


# -- any course of events ------------------------------------------------------


class WatchMachine(RuleBasedStateMachine):
    """
    Processes that spool while they cannot reach the log, and report within the settle time
    when they can: what a shard may forget never comes after an event in a spool.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.watch = SpoolWatch(NOW_MS)
        self.reach_since_ms: int | None = NOW_MS
        #: What stands beside the log.
        self.beside: dict[str, SpoolReport] = {}
        #: When the oldest event came in that waits in a spool; None for an empty one.
        self.oldest_ms: dict[str, int | None] = {"a": None}

    def say(self, spool_id: str) -> None:
        oldest_ms = self.oldest_ms[spool_id]
        floor_ms = (self.now_ms if oldest_ms is None else oldest_ms) - MARGIN_MS
        events = 0 if oldest_ms is None else 1
        self.beside[spool_id] = report(floor_ms, events=events, at_ms=self.now_ms)

    @rule(ms=st.sampled_from([0, 10, 500, 1000, 4000]))
    def time_passes(self, ms: int) -> None:
        """Whoever can reach the log reports in time, and shards read every second."""
        for _ in range(max(1, ms // 1000)):
            self.now_ms += min(ms, 1000)
            if self.reach_since_ms is None:
                self.watch.unreadable()
            else:
                if self.now_ms - self.reach_since_ms >= SETTLE_MS - 1000:
                    for spool_id in self.oldest_ms:
                        self.say(spool_id)
                self.watch.read(self.beside, self.now_ms)
            self.check()

    @precondition(lambda self: self.reach_since_ms is not None)
    @rule(spool_id=st.sampled_from("abc"))
    def report(self, spool_id: str) -> None:
        if spool_id in self.oldest_ms:
            self.say(spool_id)

    @precondition(lambda self: self.reach_since_ms is not None)
    @rule()
    def go_away(self) -> None:
        self.reach_since_ms = None
        self.watch.unreadable()

    @precondition(lambda self: self.reach_since_ms is None)
    @rule(ms=st.sampled_from([0, HOUR_MS]))
    def come_back(self, ms: int) -> None:
        self.now_ms += ms
        self.check()
        self.reach_since_ms = self.now_ms
        self.watch.read(self.beside, self.now_ms)
        self.check()

    @precondition(lambda self: self.reach_since_ms is None)
    @rule(spool_id=st.sampled_from("abc"), age_ms=st.integers(0, 5000))
    def spool(self, spool_id: str, age_ms: int) -> None:
        """Perhaps in a process that has never been able to report."""
        came_ms = max(self.now_ms - age_ms, NOW_MS)
        oldest_ms = self.oldest_ms.get(spool_id)
        self.oldest_ms[spool_id] = came_ms if oldest_ms is None else min(oldest_ms, came_ms)

    @precondition(lambda self: self.reach_since_ms is not None)
    @rule(spool_id=st.sampled_from("abc"))
    def drain(self, spool_id: str) -> None:
        if spool_id in self.beside:
            self.oldest_ms[spool_id] = None

    def check(self) -> None:
        floor_ms = self.watch.floor_ms(self.now_ms)
        for oldest_ms in self.oldest_ms.values():
            assert oldest_ms is None or floor_ms <= oldest_ms
        assert self.watch.abandoned == []


WatchMachine.TestCase.settings = settings(stateful_step_count=40)
test_nothing_that_waits_in_a_spool_came_in_before_the_floor = WatchMachine.TestCase


@given(st.lists(st.integers(1, 1_100_000), max_size=40), st.integers(0, 2500))
def test_what_is_spooled_at_once_fits_into_records(sizes: list[int], more: int) -> None:
    """Also events as large as can be, of which a batch may have thousands."""
    submissions = [submission(n, row=b"x" * size) for n, size in enumerate(sizes + [1] * more)]
    parts = list(records(submissions))
    assert [one for part in parts for one in part] == submissions
    for part in parts:
        assert 1 <= len(part) <= 1000
        assert len(pack(part)) < MAX_PAYLOAD_BYTES
