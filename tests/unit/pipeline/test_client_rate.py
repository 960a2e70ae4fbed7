"""How often one client may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.client_rate import ClientRates

NOW_MS = 1_000_000


@given(st.integers(1, 20), st.lists(st.integers(0, 700), max_size=60))
def test_nobody_asks_more_often_than_that_for_long(per_s: int, gaps_ms: list[int]) -> None:
    """In any span: what the span allows, and what had been saved up."""
    rates, now_ms, taken = ClientRates(per_s), NOW_MS, []
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        wait_s = rates.charge("a", now_ms)
        if not wait_s:
            taken.append(now_ms)
        else:
            assert wait_s <= 1 / per_s
    for n, start in enumerate(taken):
        for count, end in enumerate(taken[n:], 1):
            assert count <= per_s + per_s * (end - start) / 1000 + 1e-6


def test_who_waits_as_told_is_served() -> None:
    rates, now_ms = ClientRates(2), NOW_MS
    assert [rates.charge("a", now_ms) > 0 for _ in range(3)] == [False, False, True]

    now_ms += round(rates.charge("a", now_ms) * 1000)
    assert not rates.charge("a", now_ms)


def test_only_so_many_clients_are_remembered() -> None:
    rates = ClientRates(1, max_clients=3)
    for n in range(10):
        assert not rates.charge(str(n), NOW_MS)

    assert len(rates) == 3
    assert rates.charge("9", NOW_MS)
    assert not rates.charge("0", NOW_MS)
