"""Levels follow the backlog without flapping; a Retry-After follows what drains."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.level import DrainRate, Level, LevelGauge, LevelPolicy

NORMAL, WARNING, CRITICAL, EMERGENCY = Level
POLICY = LevelPolicy(warning=5000, critical=8000, emergency=9500)  # development, CONTRACT.md
NOW_MS = 1_795_461_600_000


def levels(*backlogs: int) -> list[Level]:
    """The level after each of these backlogs, one after the other."""
    gauge = LevelGauge(POLICY)
    seen = []
    for backlog in backlogs:
        gauge.update(backlog)
        seen.append(gauge.level)
    return seen


# -- the order of levels -----------------------------------------------------


def test_levels_compare_by_severity() -> None:
    """As strings they would not: "critical" < "normal"."""
    ascending = [NORMAL, WARNING, CRITICAL, EMERGENCY]

    assert sorted([CRITICAL, NORMAL, EMERGENCY, WARNING]) == ascending
    assert max(CRITICAL, NORMAL, EMERGENCY, WARNING) is EMERGENCY
    assert all(a < b and a <= b and b > a and b >= a for a, b in pairwise(ascending))
    assert all(a <= a and a >= a and not a < a and not a > a for a in ascending)
    assert not CRITICAL < NORMAL


def test_a_level_is_the_string_of_the_contract() -> None:
    assert [f"{level}" for level in Level] == ["normal", "warning", "critical", "emergency"]
    assert Level("warning") is WARNING
    assert hash(WARNING) == hash("warning")


# -- the gauge ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("backlog", "level"),
    [
        (0, NORMAL),
        (4999, NORMAL),
        (5000, WARNING),
        (7999, WARNING),
        (8000, CRITICAL),
        (9499, CRITICAL),
        (9500, EMERGENCY),
        (10**9, EMERGENCY),
    ],
)
def test_a_level_is_reached_at_its_threshold_at_once(backlog: int, level: Level) -> None:
    gauge = LevelGauge(POLICY)

    assert gauge.update(backlog) == (None if level is NORMAL else (NORMAL, level))
    assert gauge.level is level


@pytest.mark.parametrize(
    ("before", "backlog", "level"),
    [
        (5000, 4999, WARNING),
        (5000, 4000, WARNING),
        (5000, 3999, NORMAL),
        (8000, 6400, CRITICAL),
        (8000, 6399, WARNING),
        (8000, 4000, WARNING),
        (8000, 3999, NORMAL),
        (9500, 7600, EMERGENCY),
        # Below the threshold of critical, but emergency includes critical, and that is not left.
        (9500, 7599, CRITICAL),
        (9500, 6399, WARNING),
        (9500, 0, NORMAL),
    ],
)
def test_a_level_is_left_below_its_release(before: int, backlog: int, level: Level) -> None:
    assert levels(before, backlog)[-1] is level


def test_what_was_left_is_not_reached_again_before_its_threshold() -> None:
    backlogs = (9500, 7599, 8000, 9499, 6399, 7999, 3999, 4999, 5000)

    assert levels(*backlogs) == [
        EMERGENCY,
        *[CRITICAL] * 3,
        *[WARNING] * 2,
        *[NORMAL] * 2,
        WARNING,
    ]


def test_a_backlog_that_swings_around_a_threshold_changes_the_level_once() -> None:
    gauge = LevelGauge(POLICY)
    changes = [gauge.update(backlog) for backlog in (4990, 5010) * 50]

    assert [change for change in changes if change] == [(NORMAL, WARNING)]


def test_without_hysteresis_the_threshold_is_the_release() -> None:
    gauge = LevelGauge(LevelPolicy(10, 20, 30, release=1.0))

    assert [gauge.update(backlog) for backlog in (30, 29, 19, 9)] == [
        (NORMAL, EMERGENCY),
        (EMERGENCY, CRITICAL),
        (CRITICAL, WARNING),
        (WARNING, NORMAL),
    ]


@given(st.lists(st.integers(0, 12_000), max_size=60))
def test_each_step_is_justified(backlogs: list[int]) -> None:
    """Stated anew: reached means up, left means down, and nothing else is a change."""
    thresholds = {WARNING: 5000, CRITICAL: 8000, EMERGENCY: 9500}
    gauge = LevelGauge(POLICY)
    for backlog in backlogs:
        before = gauge.level
        change = gauge.update(backlog)
        assert change == (None if gauge.level is before else (before, gauge.level))
        for level, threshold in thresholds.items():
            if backlog >= threshold:
                assert gauge.level >= level
            elif backlog < 0.8 * threshold:
                assert gauge.level < level
            else:
                assert (gauge.level >= level) == (before >= level)


# -- how fast it drains ------------------------------------------------------


def drained(per_note: int, *, every_ms: int, for_ms: int) -> DrainRate:
    """One that drained steadily until ``NOW_MS``."""
    rate = DrainRate()
    for at_ms in range(NOW_MS - for_ms, NOW_MS + 1, every_ms):
        rate.note(per_note, at_ms)
    return rate


@pytest.mark.parametrize("every_ms", [1, 10, 99, 100, 250])
@pytest.mark.parametrize("for_ms", [2000, 9000, 60_000])
def test_a_steady_drain_is_measured(every_ms: int, for_ms: int) -> None:
    """Soon after it began as well: overload begins with a backlog, not with a rate."""
    rate = drained(2 * every_ms, every_ms=every_ms, for_ms=for_ms)

    assert rate.per_s(NOW_MS) == pytest.approx(2000, rel=0.15)


def test_a_pause_before_does_not_hold_the_rate_down() -> None:
    rate = DrainRate()
    rate.note(50, NOW_MS - 60_000)
    for at_ms in range(NOW_MS - 3000, NOW_MS + 1, 100):
        rate.note(100, at_ms)

    assert rate.per_s(NOW_MS) == pytest.approx(1000, rel=0.05)


def test_a_drain_that_stopped_fades_and_is_nothing_after_ten_seconds() -> None:
    rate = drained(100, every_ms=100, for_ms=20_000)
    rates = [rate.per_s(NOW_MS + later_ms) for later_ms in range(0, 12_000, 500)]

    assert all(later <= before for before, later in pairwise(rates))
    assert rates[10] == pytest.approx(500, rel=0.05)
    assert rates[19] > 0
    assert rates[20:] == [0] * 4


def test_one_note_is_taken_over_a_second() -> None:
    rate = DrainRate()
    rate.note(300, NOW_MS)

    assert rate.per_s(NOW_MS) == 300
    assert rate.per_s(NOW_MS + 1000) == 300
    assert rate.per_s(NOW_MS + 2000) == 150


def test_the_wait_is_that_of_the_present_rate() -> None:
    rate = drained(100, every_ms=100, for_ms=5000)

    assert rate.wait_s(12_000, NOW_MS) == pytest.approx(12, rel=0.05)


def test_the_wait_has_bounds() -> None:
    rate = drained(100, every_ms=100, for_ms=5000)

    assert rate.wait_s(0, NOW_MS) == 1
    assert rate.wait_s(-5, NOW_MS) == 1
    assert rate.wait_s(10, NOW_MS) == 1
    assert rate.wait_s(10**12, NOW_MS) == 30


def test_when_nothing_drains_the_wait_is_the_longest() -> None:
    """Also for a single event: the drain stands still."""
    stopped = drained(100, every_ms=100, for_ms=5000)
    idle = DrainRate()
    idle.note(0, NOW_MS)

    assert DrainRate().wait_s(1, NOW_MS) == 30
    assert stopped.wait_s(1, NOW_MS + 10_000) == 30
    assert idle.wait_s(1, NOW_MS) == 30


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 10**6)), max_size=50),
    st.integers(-10, 10**9),
)
def test_a_wait_is_between_1_and_30_whatever_happened(
    notes: list[tuple[int, int]], excess: int
) -> None:
    rate = DrainRate()
    now_ms = NOW_MS
    for after_ms, count in notes:
        now_ms += after_ms
        rate.note(count, now_ms)

    assert rate.per_s(now_ms) >= 0
    assert 1 <= rate.wait_s(excess, now_ms) <= 30


def test_notes_take_little_memory() -> None:
    """A slot each tenth of a second, however many notes."""
    rate = drained(1, every_ms=1, for_ms=30_000)

    assert len(rate._slots) <= 101
