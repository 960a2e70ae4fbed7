from __future__ import annotations

import pytest

from ray_tracking.events import Lane
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode, ModeGauge, Throughput, mode_of, pinned_mode


@pytest.mark.parametrize(
    ("level", "per_s", "backlog", "mode"),
    [
        (Level.NORMAL, 0, 0, Mode.REALTIME),
        (Level.NORMAL, 49.9, 99, Mode.REALTIME),
        (Level.NORMAL, 49.9, 100, Mode.HYBRID),
        (Level.NORMAL, 50, 0, Mode.HYBRID),
        (Level.NORMAL, 100, 0, Mode.HYBRID),
        (Level.NORMAL, 100.1, 0, Mode.BATCH),
        (Level.WARNING, 0, 5000, Mode.HYBRID),
        (Level.CRITICAL, 0, 0, Mode.BATCH),
        (Level.EMERGENCY, 0, 0, Mode.BATCH),
    ],
)
def test_the_rule_of_the_mode(level: Level, per_s: float, backlog: int, mode: Mode) -> None:
    gauge = ModeGauge(100)
    gauge.update(level, per_s, backlog)
    assert gauge.mode is mode


@pytest.mark.parametrize("mode", Mode)
def test_what_has_priority_is_realtime_in_every_mode(mode: Mode) -> None:
    assert mode_of(Lane.HIGH, mode) is Mode.REALTIME
    assert mode_of(Lane.NORMAL, mode) is mode


def test_a_throughput_that_swings_around_the_threshold_does_not_change_the_mode() -> None:
    gauge = ModeGauge(100)
    assert gauge.update(Level.NORMAL, 101, 0) == (Mode.HYBRID, Mode.BATCH)
    assert gauge.update(Level.NORMAL, 90, 0) is None
    assert gauge.update(Level.NORMAL, 79, 0) == (Mode.BATCH, Mode.HYBRID)
    assert gauge.update(Level.NORMAL, 99, 0) is None


def test_a_pinned_mode_stays() -> None:
    gauge = ModeGauge(100, pinned_mode("realtime"))
    assert gauge.update(Level.EMERGENCY, 10_000, 50_000) is None
    assert gauge.mode is Mode.REALTIME
    assert pinned_mode("auto") is None


def test_throughput_is_that_of_the_last_five_seconds() -> None:
    meter = Throughput()
    for second in range(11):
        meter.update(1000 * second, 1000 * second)
    assert meter.per_s == 1000
    for second in range(11, 17):
        meter.update(10_000, 1000 * second)
    assert (meter.per_s, meter.peak_per_s) == (0, 1000)


def test_the_first_count_is_no_throughput() -> None:
    """A log that was there before has its events already."""
    meter = Throughput()
    meter.update(1_000_000, 0)
    meter.update(1_000_010, 100)
    assert meter.per_s == 10


def test_another_time_may_be_looked_at() -> None:
    meter = Throughput(over_ms=300, least_ms=200)
    meter.update(0, 0)
    meter.update(10, 50)
    assert meter.per_s == 50  # as if it had taken 200 ms
    meter.update(60, 300)
    assert meter.per_s == 200
    meter.update(60, 320)
    assert meter.per_s == pytest.approx(50 / 0.27)


def test_a_count_that_starts_anew_is_not_negative() -> None:
    meter = Throughput()
    meter.update(1000, 0)
    meter.update(5, 1000)
    assert meter.per_s == 0
