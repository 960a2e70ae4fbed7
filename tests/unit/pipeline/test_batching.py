"""BatchSize: how many events go into a flush."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.batching import BatchSize

TARGET_MS = 200.0


def test_it_begins_with_as_many_as_are_allowed() -> None:
    assert BatchSize(1000).events == 1000


def test_a_slow_flush_makes_the_next_smaller_by_as_much() -> None:
    size = BatchSize(1000, TARGET_MS)
    size.note(1000, 2 * TARGET_MS)
    assert size.events == 500


def test_what_is_slow_for_another_reason_than_its_size_does_not_end_in_single_events() -> None:
    size = BatchSize(1000, TARGET_MS)
    for _ in range(10):
        size.note(size.events, 60_000)
    assert size.events == 100


def test_full_flushes_that_are_easily_in_time_grow_until_the_bound() -> None:
    size = BatchSize(1000, TARGET_MS)
    size.note(1000, 5 * TARGET_MS)
    sizes = []
    for _ in range(10):
        size.note(size.events, TARGET_MS / 4)
        sizes.append(size.events)
    assert sizes == sorted(sizes)
    assert sizes[0] == 250
    assert sizes[-1] == 1000


def test_flushes_that_are_not_full_say_nothing_of_larger_ones() -> None:
    size = BatchSize(1000, TARGET_MS)
    size.note(1000, 2 * TARGET_MS)
    size.note(10, 1)
    assert size.events == 500


def test_near_its_target_it_stays() -> None:
    size = BatchSize(1000, TARGET_MS)
    size.note(1000, 2 * TARGET_MS)
    size.note(500, 0.9 * TARGET_MS)
    assert size.events == 500


def test_a_flush_waits_for_company_as_long_as_is_asked_and_longer_after_a_slow_one() -> None:
    size = BatchSize(1000, TARGET_MS)
    assert size.linger_ms(25) == 25
    size.note(100, 5)
    assert size.linger_ms(25) == 25
    size.note(100, 20)
    assert size.linger_ms(25) == 80
    size.note(100, 10 * TARGET_MS)
    assert size.linger_ms(25) == TARGET_MS
    assert size.linger_ms(2 * TARGET_MS) == 2 * TARGET_MS


def test_what_may_not_wait_does_not_wait_after_a_slow_flush_either() -> None:
    size = BatchSize(1000, TARGET_MS)
    size.note(100, TARGET_MS)
    assert size.linger_ms(0) == 0


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.integers(1, 20_000), st.floats(0, 1e6)), max_size=50),
)
def test_it_stays_between_its_bounds(most: int, flushes: list[tuple[int, float]]) -> None:
    size = BatchSize(most, TARGET_MS)
    for events, took_ms in flushes:
        size.note(events, took_ms)
        assert min(100, most) <= size.events <= most


def test_where_each_row_takes_its_time_it_settles_at_the_target() -> None:
    size = BatchSize(5000, TARGET_MS)
    for _ in range(50):
        size.note(size.events, 10 + 0.5 * size.events)
    assert TARGET_MS / 2.5 <= 10 + 0.5 * size.events <= 1.1 * TARGET_MS
