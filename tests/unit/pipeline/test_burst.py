"""Burst: whether rows wait because too much comes in to be stored beside it."""

from __future__ import annotations

from ray_tracking.pipeline.burst import Burst

DELAY_MS = 5000


def coming(per_s: float, *, for_ms: int = 1000, storing_per_s: float = 30_000) -> Burst:
    """What has followed events that came in evenly, where full flushes manage so many."""
    burst = Burst()
    burst.stored(1000, 1000 * 1000 / storing_per_s, full_events=1000)
    for now_ms in range(0, for_ms + 1, 10):
        burst.came(round(per_s * now_ms / 1000), now_ms)
    return burst


def test_rows_wait_while_storing_would_take_much_of_the_time() -> None:
    assert coming(40_000).wait_ms(0, DELAY_MS) > 0
    assert coming(11_000).wait_ms(0, DELAY_MS) > 0


def test_rows_go_at_once_where_storing_is_easily_done_beside_it() -> None:
    assert coming(9000).wait_ms(0, DELAY_MS) == 0
    assert coming(40_000, storing_per_s=150_000).wait_ms(0, DELAY_MS) == 0


def test_somebody_looks_again_soon_and_in_time() -> None:
    burst = coming(40_000)
    assert burst.wait_ms(0, DELAY_MS) <= 50
    assert burst.wait_ms(DELAY_MS - 20, DELAY_MS) == 20


def test_no_event_becomes_older_than_it_may() -> None:
    assert coming(40_000).wait_ms(DELAY_MS, DELAY_MS) == 0
    assert coming(40_000).wait_ms(DELAY_MS + 1, DELAY_MS) == 0
    assert coming(40_000).wait_ms(0, 0) == 0


def test_a_burst_is_over_when_nothing_comes_any_more() -> None:
    burst = coming(40_000)
    burst.came(40_000, 1200)
    assert burst.wait_ms(0, DELAY_MS) > 0
    burst.came(40_000, 1310)
    assert burst.wait_ms(0, DELAY_MS) == 0


def test_after_a_pause_what_was_there_before_does_not_count() -> None:
    burst = coming(40_000)
    burst.came(40_001, 60_000)
    assert burst.wait_ms(0, DELAY_MS) == 0


def test_nothing_waits_before_it_is_known_what_storing_takes() -> None:
    burst = Burst()
    for now_ms in range(0, 1000, 10):
        burst.came(40 * now_ms, now_ms)
    assert burst.wait_ms(0, DELAY_MS) == 0


def test_small_flushes_say_nothing_of_what_full_ones_take() -> None:
    burst = coming(1000)
    burst.stored(10, 20, full_events=1000)  # 500/s
    assert burst.wait_ms(0, DELAY_MS) == 0
    burst.stored(1000, 0, full_events=1000)  # faster than the clock
    assert burst.wait_ms(0, DELAY_MS) == 0


def test_a_flush_that_was_held_up_says_nothing_of_what_full_ones_take() -> None:
    """Postgres was away for a while; that is no reason to store later still."""
    burst = coming(1000)
    burst.stored(1000, 60_000, full_events=1000)  # 17/s
    assert burst.wait_ms(0, DELAY_MS) == 0
