"""Pace: how long work will wait for its turn."""

from __future__ import annotations

import pytest

from ray_tracking.pipeline.pace import Pace


def measured(longest_wait_s: float = 1.0) -> Pace:
    """A thousand bytes take a second."""
    pace = Pace(longest_wait_s)
    pace.note(1000, 1.0)
    return pace


def test_nothing_is_too_long_before_anything_was_measured() -> None:
    pace = Pace(1.0)
    with pace.waiting(10**9):
        assert pace.wait_s == 0
        assert not pace.too_long


def test_the_wait_is_what_waits_at_the_pace_of_what_was_done() -> None:
    pace = measured()
    with pace.waiting(500), pace.waiting(250):
        assert pace.wait_s == pytest.approx(0.75)
    assert pace.wait_s == 0


def test_it_is_too_long_only_beyond_the_longest_wait() -> None:
    pace = measured(longest_wait_s=2.0)
    with pace.waiting(2000):
        assert not pace.too_long
        with pace.waiting(1):
            assert pace.too_long
    assert not pace.too_long


def test_what_fails_waits_no_more() -> None:
    pace = measured()
    with pytest.raises(RuntimeError), pace.waiting(5000):
        raise RuntimeError
    assert pace.waiting_bytes == 0


def test_it_follows_what_the_last_took() -> None:
    pace = measured()
    for _ in range(50):
        pace.note(1000, 0.1)
    with pace.waiting(1000):
        assert pace.wait_s == pytest.approx(0.1, rel=0.1)
