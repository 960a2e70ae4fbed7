"""The rate limit: at most N in any window, and a Retry-After that can be relied on."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ray_tracking.pipeline.rate import (
    BURST_WINDOW_MS,
    SLOTS_PER_WINDOW,
    CampaignLimits,
    RateLimits,
    RatePolicy,
)
from tests.unit.pipeline.samples import NOW_MS

POLICY = RatePolicy(max_events=6, window_ms=3000, burst=3)
CAMPAIGNS = ["c1", "c2"]


def charge(rates: RateLimits, now_ms: int, *, key: str = "c1", single: bool = False) -> float:
    return rates.charge(key, single=single, now_ms=now_ms)


def most_in_any(window_ms: int, times_ms: list[int]) -> int:
    """The fullest window: it begins with one of the events."""
    return max(
        (sum(start <= at < start + window_ms for at in times_ms) for start in times_ms), default=0
    )


class RateMachine(RuleBasedStateMachine):
    """Any order of events, refusals by the log and waits keeps the promise in every window."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = RateLimits(POLICY)
        self.now_ms = 1_000_000
        #: For each campaign, what stands charged: when, and whether alone.
        self.charged: dict[str, list[tuple[int, bool]]] = {key: [] for key in CAMPAIGNS}

    @rule(key=st.sampled_from(CAMPAIGNS), single=st.booleans(), count=st.integers(1, 8))
    def send(self, key: str, single: bool, count: int) -> None:
        for _ in range(count):
            wait_s = charge(self.rates, self.now_ms, key=key, single=single)
            assert wait_s >= 0
            if not wait_s:
                self.charged[key].append((self.now_ms, single))

    @rule(key=st.sampled_from(CAMPAIGNS), single=st.booleans())
    def wait_as_told(self, key: str, single: bool) -> None:
        """Coming back exactly then is soon enough, and never later than a window and a slot."""
        wait_s = charge(self.rates, self.now_ms, key=key, single=single)
        assert wait_s * 1000 <= POLICY.window_ms * (1 + 1 / SLOTS_PER_WINDOW)
        if wait_s:
            self.now_ms += round(wait_s * 1000)
            assert charge(self.rates, self.now_ms, key=key, single=single) == 0
        self.charged[key].append((self.now_ms, single))

    @precondition(lambda self: any(self.charged.values()))
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """The log did not take one of the last events."""
        key = data.draw(st.sampled_from([key for key in CAMPAIGNS if self.charged[key]]))
        place = data.draw(st.integers(1, min(6, len(self.charged[key]))))
        at_ms, single = self.charged[key].pop(-place)
        self.rates.refund(key, single=single, at_ms=at_ms)

    @rule(ms=st.integers(1, 40) | st.sampled_from([999, 1000, 1010, 2999, 3000, 3030]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def housekeeping(self) -> None:
        self.rates.expire(self.now_ms)

    @invariant()
    def no_window_has_too_many(self) -> None:
        for charged in self.charged.values():
            assert most_in_any(POLICY.window_ms, [at for at, _ in charged]) <= POLICY.max_events
            alone = [at for at, single in charged if single]
            assert most_in_any(BURST_WINDOW_MS, alone) <= POLICY.burst

    @invariant()
    def nobody_is_refused_who_has_room(self) -> None:
        """Room in the window and one slot before it is room."""
        slack = 1 + 1 / SLOTS_PER_WINDOW
        for key, charged in self.charged.items():
            recent = sum(at > self.now_ms - POLICY.window_ms * slack for at, _ in charged)
            burst = sum(
                at > self.now_ms - BURST_WINDOW_MS * slack for at, single in charged if single
            )
            if recent < POLICY.max_events and burst < POLICY.burst:
                assert charge(self.rates, self.now_ms, key=key, single=True) == 0
                self.rates.refund(key, single=True, at_ms=self.now_ms)


RateMachine.TestCase.settings = settings(stateful_step_count=40)
test_the_rate_holds_in_every_window = RateMachine.TestCase


def test_the_last_event_of_the_budget_passes_and_the_next_does_not() -> None:
    rates = RateLimits(POLICY)

    assert [charge(rates, 0) > 0 for _ in range(8)] == [False] * 6 + [True] * 2


def test_a_campaign_pays_for_itself_only() -> None:
    rates = RateLimits(POLICY)
    while not charge(rates, 0, key="c1"):
        pass

    assert charge(rates, 0, key="c2") == 0


def test_a_batch_is_not_held_to_the_burst_limit() -> None:
    """It is one request, and 10,000 events in it are no sign of anything."""
    rates = RateLimits(POLICY)

    assert [charge(rates, 0, single=False) for _ in range(6)] == [0] * 6


def test_single_events_may_come_again_when_their_second_is_over() -> None:
    rates = RateLimits(POLICY)
    for _ in range(3):
        assert charge(rates, 0, single=True) == 0

    wait_s = charge(rates, 500, single=True)
    assert 0.5 <= wait_s <= 0.52
    assert charge(rates, 500, single=False) == 0
    assert charge(rates, 500 + round(wait_s * 1000), single=True) == 0


def test_what_was_refused_costs_nothing() -> None:
    """Otherwise a client that hammers would never come in again."""
    rates = RateLimits(POLICY)
    for at_ms in range(0, 3000, 10):
        charge(rates, at_ms)

    assert charge(rates, 3030) == 0


def test_a_refund_gives_back_the_moment_that_was_charged() -> None:
    """
    Taken from the latest moment instead, it would make room for 11 in one window: the
    5 that are in the log would leave it with the slot of the 5 that are not.
    """
    rates = RateLimits(RatePolicy(max_events=10, window_ms=1000))
    for at_ms in (0, 500):
        for _ in range(5):
            assert charge(rates, at_ms) == 0
    for _ in range(5):
        rates.refund("c1", single=False, at_ms=0)

    admitted = [500] * 5 + [at_ms for at_ms in range(600, 1500) if not charge(rates, at_ms)]
    assert most_in_any(1000, admitted) == 10


def test_a_refund_of_what_is_long_over_changes_nothing() -> None:
    rates = RateLimits(POLICY)
    charge(rates, 0, single=True)
    for at_ms in (4000, 4000, 4000):
        charge(rates, at_ms, single=True)
    rates.refund("c1", single=True, at_ms=0)
    rates.refund("c2", single=True, at_ms=0)

    assert charge(rates, 4000, single=True) > 0


def test_a_limit_of_nothing_admits_nothing() -> None:
    rates = RateLimits(RatePolicy(max_events=0, window_ms=3000))

    assert charge(rates, 0) == 3


@pytest.mark.parametrize("window_ms", [3, 7, 99, 100, 2345])
def test_windows_of_any_length_hold(window_ms: int) -> None:
    rates = RateLimits(RatePolicy(max_events=3, window_ms=window_ms))
    admitted = [at_ms for at_ms in range(4 * window_ms + 4) if not charge(rates, at_ms)]

    assert most_in_any(window_ms, admitted) == 3


# -- after a restart ---------------------------------------------------------


@given(
    st.lists(st.integers(0, 2900) | st.integers(3100, 5000), max_size=12),
    st.randoms(use_true_random=False),
)
def test_a_successor_counts_as_its_predecessor_did(ages_ms: list[int], random: Random) -> None:
    """Lanes are read one after the other, so the times do not come in order."""
    now_ms = 1_000_000
    times = sorted(now_ms - age_ms for age_ms in ages_ms)
    before, after = RateLimits(POLICY), RateLimits(POLICY)
    admitted = [at_ms for at_ms in times if not charge(before, at_ms)]
    random.shuffle(admitted)
    for at_ms in admitted:
        after.restore("c1", at_ms=at_ms, now_ms=now_ms)

    for later_ms in range(now_ms, now_ms + 4000, 250):
        assert charge(after, later_ms) == charge(before, later_ms)


def test_a_clock_that_was_set_back_shuts_nobody_out_for_longer_than_a_window() -> None:
    rates = RateLimits(POLICY)
    for _ in range(100):
        rates.restore("c1", at_ms=9_000_000, now_ms=1_000_000)

    assert charge(rates, 1_000_000) > 0
    assert charge(rates, 1_000_000 + 3000 + 30) == 0


def test_an_old_entry_of_the_log_is_no_debt() -> None:
    rates = RateLimits(POLICY)
    for _ in range(100):
        rates.restore("c1", at_ms=1_000_000 - 3000, now_ms=1_000_000)

    assert charge(rates, 1_000_000) == 0


# -- memory ------------------------------------------------------------------


def test_an_idle_campaign_is_forgotten() -> None:
    rates = RateLimits(POLICY)
    for n in range(100):
        charge(rates, n, key=f"c{n}", single=True)
    rates.expire(2000)
    assert len(rates) == 100
    rates.expire(3100)
    assert len(rates) == 10

    rates.expire(4000)
    assert len(rates) == 0


def test_a_campaign_with_limits_of_its_own_goes_by_those() -> None:
    own = {"c1": CampaignLimits(max_events=2), "c2": CampaignLimits(burst=1)}
    rates = RateLimits(replace(POLICY, campaigns=own))

    assert [charge(rates, 0) > 0 for _ in range(3)] == [False, False, True]
    assert [charge(rates, 0, key="c2", single=True) > 0 for _ in range(2)] == [False, True]
    assert [charge(rates, 0, key="c3") > 0 for _ in range(7)] == [False] * 6 + [True]


def test_what_was_charged_counts_under_other_limits_too() -> None:
    rates = RateLimits(POLICY)
    for at_ms in (10_000, 11_000, 12_000):
        assert not charge(rates, at_ms)

    rates.change(replace(POLICY, max_events=3))
    assert charge(rates, 12_000)
    rates.change(replace(POLICY, max_events=3, window_ms=1500))
    assert not charge(rates, 12_600)
    assert not charge(rates, 12_600)
    assert charge(rates, 12_600)
    rates.change(replace(POLICY, max_events=3, window_ms=60_000))
    assert charge(rates, 20_000)


def test_a_window_that_became_shorter_holds_for_what_was_charged_before() -> None:
    limits = RateLimits(RatePolicy(max_events=10, window_ms=60_000))
    at_ms = NOW_MS - NOW_MS % 600 + 599
    for _ in range(10):
        assert not limits.charge("c", single=False, now_ms=at_ms)
    limits.change(RatePolicy(max_events=10, window_ms=1000))
    assert limits.charge("c", single=False, now_ms=at_ms + 999)
    assert not limits.charge("c", single=False, now_ms=at_ms + 1100)


def test_what_was_charged_to_a_longer_window_can_be_given_back() -> None:
    limits = RateLimits(RatePolicy(max_events=10, window_ms=60_000))
    for _ in range(10):
        assert not limits.charge("c", single=False, now_ms=NOW_MS)
    limits.change(RatePolicy(max_events=10, window_ms=30_000))
    assert limits.charge("c", single=False, now_ms=NOW_MS)
    for _ in range(10):
        limits.refund("c", single=False, at_ms=NOW_MS)
    for _ in range(10):
        assert not limits.charge("c", single=False, now_ms=NOW_MS)
