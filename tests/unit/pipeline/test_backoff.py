"""Waiting between attempts: longer each time, spread, and never too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.backoff import Backoff

BACKOFF = Backoff(first_s=0.1, longest_s=5.0)

randoms = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "longest_s"), [(0, 0.1), (1, 0.2), (2, 0.4), (5, 3.2), (6, 5.0), (7, 5.0)]
)
def test_the_interval_doubles_up_to_the_longest(attempt: int, longest_s: float) -> None:
    assert BACKOFF.wait_s(attempt, 0.999999) == pytest.approx(longest_s, rel=1e-5)


@pytest.mark.parametrize("attempt", [0, 3, 50])
def test_the_wait_is_drawn_from_all_of_the_interval(attempt: int) -> None:
    """Full jitter: a wait that had a fixed part would keep clients in step."""
    half_s = BACKOFF.wait_s(attempt, 0.5)

    assert BACKOFF.wait_s(attempt, 0.0) == 0
    assert BACKOFF.wait_s(attempt, 0.25) == pytest.approx(half_s / 2)


@given(st.integers(0, 10**30), randoms)
def test_no_wait_is_too_long_however_many_attempts_failed(attempt: int, random: float) -> None:
    assert 0 <= BACKOFF.wait_s(attempt, random) <= 5.0


@given(st.integers(0, 3000), randoms, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_a_later_attempt_never_waits_in_a_smaller_interval(
    attempt: int, random: float, first_s: float, longest_s: float
) -> None:
    backoff = Backoff(first_s, longest_s)

    assert backoff.wait_s(attempt, random) <= backoff.wait_s(attempt + 1, random) <= longest_s


@pytest.mark.parametrize("attempt", [1022, 1023, 1024, 10**9])
def test_the_largest_exponents_are_no_error(attempt: int) -> None:
    assert Backoff(100.0, 7.0).wait_s(attempt, 0.5) == 3.5
