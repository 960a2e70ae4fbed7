"""The breaker: opens on evidence, tries with few calls, and comes back without a stampede."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ray_tracking.pipeline.breaker import (
    ASK_AGAIN_MS,
    SLOTS_PER_WINDOW,
    Breaker,
    BreakerPolicy,
    BreakerState,
)

CLOSED, OPEN, HALF_OPEN = BreakerState
POLICY = BreakerPolicy(jitter=0.0)
WRITER = replace(POLICY, min_calls=3)
NOW_MS = 1_795_461_600_000
#: Draws that let no call without a permit through, and each.
HIGH, LOW = 0.999999, 0.0


def outcome(
    breaker: Breaker, ok: bool, now_ms: int, *, took_ms: float = 5, random: float = 0.5
) -> BreakerState | None:
    return breaker.record(ok, took_ms=took_ms, now_ms=now_ms, random=random)


def fail(breaker: Breaker, times: int, now_ms: int) -> list[BreakerState | None]:
    return [outcome(breaker, False, now_ms) for _ in range(times)]


def opened(policy: BreakerPolicy = POLICY, *, random: float = 0.5) -> Breaker:
    """One that opened at ``NOW_MS``."""
    breaker = Breaker(policy)
    for _ in range(policy.min_calls):
        outcome(breaker, False, NOW_MS, random=random)
    assert breaker.state is OPEN
    return breaker


def half_opened(policy: BreakerPolicy = POLICY) -> tuple[Breaker, int]:
    """One with a trial call on its way, and when that began."""
    breaker = opened(policy)
    now_ms = NOW_MS + ceil(breaker.wait_ms(NOW_MS))
    assert breaker.allow(now_ms, HIGH)
    assert breaker.state is HALF_OPEN
    return breaker, now_ms


def closed_again(policy: BreakerPolicy = POLICY) -> tuple[Breaker, int]:
    """One that closed again with no call on its way, and when."""
    breaker, now_ms = half_opened(policy)
    for _ in range(policy.trials - 1):
        assert outcome(breaker, True, now_ms + 5) is None
        assert breaker.allow(now_ms, HIGH)
    assert outcome(breaker, True, now_ms + 5) is CLOSED
    return breaker, now_ms + 5


# -- any order of calls ------------------------------------------------------

SMALL = BreakerPolicy(
    window_ms=1000,
    min_calls=4,
    failure_rate=0.5,
    slow_call_ms=50.0,
    first_open_ms=40,
    longest_open_ms=200,
    permits=2,
    permit_timeout_ms=300,
    trials=3,
    ramp_ms=100,
)
draws = st.floats(0, 1, exclude_max=True)


@dataclass(eq=False)
class Call:
    began_us: int
    #: How often it had opened when this began.
    openings: int
    #: How often it had closed, for a trial call; None for any other.
    closings: int | None


class BreakerMachine(RuleBasedStateMachine):
    """
    Calls begin, end in any order, and get lost; the promises hold.

    The callers measure in microseconds, the breaker's clock is cut to milliseconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SMALL)
        self.now_us = NOW_MS * 1000
        self.on_their_way: list[Call] = []
        self.lost: list[Call] = []
        self.openings = self.closings = self.successes = 0
        #: Since it closed last: whether each outcome that counts was a failure.
        self.outcomes: list[bool] = []

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def alive(self) -> list[Call]:
        """The calls that are on their way, as far as the breaker can know."""
        oldest_ms = self.now_ms - SMALL.permit_timeout_ms
        calls = self.on_their_way + self.lost
        return [call for call in calls if call.began_us // 1000 > oldest_ms]

    @rule(random=draws)
    def call(self, random: float) -> None:
        before, wait_ms = self.breaker.state, self.breaker.wait_ms(self.now_ms)
        allowed = self.breaker.allow(self.now_ms, random)
        assert allowed or wait_ms > 0
        if before is OPEN and self.breaker.state is HALF_OPEN:
            self.successes = 0
        else:
            assert self.breaker.state is before
        if allowed:
            assert self.breaker.state is not OPEN
            trial = self.closings if self.breaker.state is HALF_OPEN else None
            self.on_their_way.append(Call(self.now_us, self.openings, trial))
        else:
            assert self.breaker.wait_ms(self.now_ms) > 0
            assert self.breaker.state is OPEN or len(self.alive()) >= SMALL.permits

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data(), ok=st.booleans(), random=draws)
    def finish(self, data: st.DataObject, ok: bool, random: float) -> None:
        call = self.on_their_way.pop(data.draw(st.integers(0, len(self.on_their_way) - 1)))
        took_ms = (self.now_us - call.began_us) / 1000
        before = self.breaker.state
        changed = self.breaker.record(ok, took_ms=took_ms, now_ms=self.now_ms, random=random)
        assert self.breaker.state is (changed or before)
        if call.openings != self.openings:
            assert changed is None
            return
        failed = not ok or took_ms > SMALL.slow_call_ms
        self.outcomes.append(failed)
        if before is HALF_OPEN:
            self.successes += not failed
            closes = CLOSED if self.successes == SMALL.trials else None
            assert changed is (OPEN if failed else closes)
        elif changed:
            assert changed is OPEN
            assert failed
            assert sum(self.outcomes) >= SMALL.min_calls * SMALL.failure_rate
            assert len(self.outcomes) >= SMALL.min_calls
        else:
            assert not all(self.outcomes) or len(self.outcomes) < SMALL.min_calls
        if changed is OPEN:
            self.openings += 1
            open_ms = self.breaker.wait_ms(self.now_ms)
            assert SMALL.first_open_ms * 0.79 < open_ms < SMALL.longest_open_ms * 1.21
        if changed is CLOSED:
            self.closings += 1
            self.outcomes.clear()

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Its caller was cancelled, and told nobody."""
        place = data.draw(st.integers(0, len(self.on_their_way) - 1))
        self.lost.append(self.on_their_way.pop(place))

    @rule(us=st.integers(1, 20_000) | st.sampled_from([999, 1000, 50_000, 300_000, 1_100_000]))
    def time_passes(self, us: int) -> None:
        self.now_us += us

    @precondition(lambda self: self.breaker.state is OPEN)
    @rule(random=draws)
    def wait_as_told(self, random: float) -> None:
        """An open breaker is half-open as soon as somebody asks after its time."""
        self.now_us += ceil(self.breaker.wait_ms(self.now_ms)) * 1000
        self.call(random)
        assert self.breaker.state is HALF_OPEN

    @rule(random=draws)
    def be_patient(self, random: float) -> None:
        """Whatever was lost: it stays shut for no longer than one opening and one timeout."""
        self.now_us += ceil(SMALL.longest_open_ms * 1.2 + SMALL.permit_timeout_ms) * 1000
        assert self.breaker.wait_ms(self.now_ms) == 0
        self.call(random)

    @invariant()
    def no_more_trials_than_permits(self) -> None:
        trials = [call for call in self.alive() if call.closings == self.closings]
        assert len(trials) <= SMALL.permits

    @invariant()
    def what_is_shown_is_so(self) -> None:
        shown = self.breaker.describe(self.now_ms)
        assert shown["state"] == self.breaker.state
        assert (shown["openedAt"] is None) == (self.breaker.state is CLOSED)
        assert 0 <= self.breaker.failures <= sum(self.outcomes)


BreakerMachine.TestCase.settings = settings(stateful_step_count=60)
test_the_promises_hold_in_any_order_of_calls = BreakerMachine.TestCase


# -- when it opens -----------------------------------------------------------


def test_it_opens_when_half_of_enough_calls_failed() -> None:
    breaker = Breaker(POLICY)
    for _ in range(6):
        assert outcome(breaker, True, NOW_MS) is None

    assert fail(breaker, 6, NOW_MS) == [None] * 5 + [OPEN]
    assert breaker.state is OPEN
    assert not breaker.allow(NOW_MS, LOW)


def test_nine_failures_are_no_rate_and_the_tenth_call_that_fails_is() -> None:
    breaker = Breaker(POLICY)

    assert fail(breaker, 10, NOW_MS) == [None] * 9 + [OPEN]


def test_a_success_never_opens() -> None:
    """Though it may be the one with which there are enough calls for a rate."""
    breaker = Breaker(POLICY)
    fail(breaker, 9, NOW_MS)

    assert outcome(breaker, True, NOW_MS) is None
    assert outcome(breaker, False, NOW_MS) is OPEN


def test_a_burst_of_failures_among_many_calls_is_no_reason() -> None:
    """Ten calls that were on one lost connection, of a thousand."""
    breaker = Breaker(POLICY)
    for _ in range(1000):
        outcome(breaker, True, NOW_MS)

    assert fail(breaker, 20, NOW_MS) == [None] * 20


def test_slow_calls_count_as_failed() -> None:
    breaker = Breaker(POLICY)
    for _ in range(5):
        assert outcome(breaker, True, NOW_MS, took_ms=2000) is None
    for _ in range(4):
        assert outcome(breaker, True, NOW_MS, took_ms=2000.5) is None
    assert breaker.failures == 4

    assert outcome(breaker, True, NOW_MS, took_ms=60_000) is OPEN


def test_failures_leave_the_window() -> None:
    breaker = Breaker(POLICY)
    fail(breaker, 9, NOW_MS)
    outcome(breaker, True, NOW_MS)
    slot_ms = POLICY.window_ms // SLOTS_PER_WINDOW
    assert breaker.describe(NOW_MS + POLICY.window_ms - 1)["failures"] == 9

    assert breaker.describe(NOW_MS + POLICY.window_ms + slot_ms)["failures"] == 0
    assert outcome(breaker, False, NOW_MS + POLICY.window_ms + slot_ms) is None


@given(st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=60))
def test_the_failures_are_those_of_the_window(steps: list[tuple[int, bool]]) -> None:
    breaker = Breaker(replace(POLICY, min_calls=1000))
    now_ms, failed_at = NOW_MS, []
    for after_ms, ok in steps:
        now_ms += after_ms
        outcome(breaker, ok, now_ms)
        failed_at += [] if ok else [now_ms]
        least = sum(at > now_ms - POLICY.window_ms for at in failed_at)
        most = sum(at > now_ms - POLICY.window_ms * 1.1 for at in failed_at)
        assert least <= breaker.failures <= most


@pytest.mark.parametrize("apart_ms", [10, 5000, 40_000, 3_600_000])
def test_someone_who_calls_rarely_opens_after_failures_in_a_row(apart_ms: int) -> None:
    """A writer has one call at a time, and each of them may wait for a timeout."""
    breaker = Breaker(WRITER)
    times = [NOW_MS + n * apart_ms for n in range(3)]

    assert [outcome(breaker, False, at_ms) for at_ms in times] == [None, None, OPEN]


def test_a_success_between_ends_the_row() -> None:
    breaker = Breaker(WRITER)
    outcomes = [False, False, True] * 20

    assert {outcome(breaker, ok, NOW_MS + n * 40_000) for n, ok in enumerate(outcomes)} == {None}


def test_slots_are_few() -> None:
    breaker = Breaker(POLICY)
    for at_ms in range(NOW_MS, NOW_MS + 60_000, 7):
        outcome(breaker, True, at_ms)

    assert len(breaker._outcomes.slots) <= SLOTS_PER_WINDOW + 2


# -- how long it is open -----------------------------------------------------


def openings_ms(breaker: Breaker) -> Iterator[float]:
    """How long each opening takes while every trial fails."""
    now_ms = NOW_MS
    while True:
        open_ms = breaker.wait_ms(now_ms)
        yield open_ms
        now_ms += ceil(open_ms)
        assert breaker.allow(now_ms, HIGH)
        assert outcome(breaker, False, now_ms + 3, took_ms=3) is OPEN
        now_ms += 3


def test_each_opening_is_twice_as_long_up_to_the_longest() -> None:
    spans = [open_ms for open_ms, _ in zip(openings_ms(opened()), range(8), strict=False)]

    assert spans == [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]


def test_thousands_of_openings_are_no_longer_than_the_longest() -> None:
    """The numbers do not grow where nobody sees them."""
    spans = [open_ms for open_ms, _ in zip(openings_ms(opened()), range(3000), strict=False)]

    assert spans[-1] == 15_000


@pytest.mark.parametrize(("random", "open_ms"), [(0.0, 400), (0.5, 500), (0.75, 550)])
def test_the_time_open_is_jittered_by_a_fifth(random: float, open_ms: float) -> None:
    breaker = opened(BreakerPolicy(), random=random)

    assert breaker.wait_ms(NOW_MS) == pytest.approx(open_ms)
    assert not breaker.allow(NOW_MS + ceil(open_ms) - 1, LOW)
    assert breaker.allow(NOW_MS + ceil(open_ms), HIGH)


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.randoms(use_true_random=False))
def test_no_opening_is_longer_than_the_longest_and_its_jitter(
    first_ms: int, longest_ms: int, random: Random
) -> None:
    breaker = opened(
        BreakerPolicy(first_open_ms=first_ms, longest_open_ms=longest_ms), random=random.random()
    )
    now_ms = NOW_MS
    for _ in range(25):
        # Unix time in milliseconds is a float of a quarter of a microsecond.
        assert 0 < breaker.wait_ms(now_ms) <= longest_ms * 1.2 + 0.001
        now_ms += ceil(breaker.wait_ms(now_ms))
        assert breaker.allow(now_ms, HIGH)
        outcome(breaker, False, now_ms, took_ms=0, random=random.random())


def test_who_closed_only_for_a_moment_opens_for_longer() -> None:
    """A server that flaps is not called every half second for ever."""
    breaker, now_ms = closed_again()
    fail(breaker, 10, now_ms + POLICY.window_ms - 1)

    assert breaker.wait_ms(now_ms + POLICY.window_ms - 1) == 1000


def test_after_a_calm_window_it_begins_anew() -> None:
    breaker, now_ms = closed_again()
    fail(breaker, 10, now_ms + POLICY.window_ms)

    assert breaker.wait_ms(now_ms + POLICY.window_ms) == 500


def test_the_failures_of_the_outage_do_not_open_it_again() -> None:
    breaker, now_ms = closed_again()

    assert breaker.failures == 0
    assert fail(breaker, 9, now_ms + 1) == [None] * 9


# -- trial calls -------------------------------------------------------------


def test_only_as_many_trials_as_permits_are_on_their_way() -> None:
    breaker, now_ms = half_opened()

    assert [breaker.allow(now_ms + n, LOW) for n in range(5)] == [True] + [False] * 4
    assert breaker.wait_ms(now_ms + 5) == ASK_AGAIN_MS
    assert outcome(breaker, True, now_ms + 10, took_ms=10) is None
    assert breaker.wait_ms(now_ms + 10) == 0
    assert [breaker.allow(now_ms + 10, LOW) for _ in range(3)] == [True, False, False]


def test_enough_successes_close_it() -> None:
    breaker, now_ms = half_opened(replace(POLICY, trials=3, permits=1))
    changes = []
    for n in range(3):
        changes.append(outcome(breaker, True, now_ms + 10 * n + 5))
        breaker.allow(now_ms + 10 * n + 10, HIGH)

    assert changes == [None, None, CLOSED]
    assert breaker.opened_at_ms is None


@pytest.mark.parametrize(("ok", "took_ms"), [(False, 5), (True, 2001)])
def test_a_trial_that_fails_or_is_slow_opens_it_again(ok: bool, took_ms: float) -> None:
    breaker, now_ms = half_opened()
    breaker.allow(now_ms, HIGH)
    assert outcome(breaker, True, now_ms + 5) is None

    assert outcome(breaker, ok, now_ms + 2001, took_ms=took_ms) is OPEN


def test_successes_of_an_earlier_try_do_not_count() -> None:
    breaker, now_ms = half_opened()
    breaker.allow(now_ms, HIGH)
    outcome(breaker, True, now_ms + 5)
    outcome(breaker, False, now_ms + 5)
    now_ms += 5 + ceil(breaker.wait_ms(now_ms + 5))
    breaker.allow(now_ms, HIGH)

    assert outcome(breaker, True, now_ms + 5) is None


def test_a_permit_whose_outcome_never_came_is_given_back() -> None:
    """Otherwise two cancelled calls would shut it for ever."""
    breaker, now_ms = half_opened()
    assert breaker.allow(now_ms + 100, HIGH)

    assert not breaker.allow(now_ms + 9999, LOW)
    assert [breaker.allow(now_ms + 10_000, LOW) for _ in range(2)] == [True, False]
    assert breaker.wait_ms(now_ms + 10_100) == 0


def test_a_trial_that_comes_back_after_its_permit_timed_out_takes_no_other_ones() -> None:
    breaker, now_ms = half_opened(replace(POLICY, slow_call_ms=60_000, trials=5))
    for _ in range(3):
        breaker.allow(now_ms + 10_000, HIGH)
    outcome(breaker, True, now_ms + 10_001, took_ms=10_001)

    assert not breaker.allow(now_ms + 10_002, LOW)


@pytest.mark.parametrize(("took_ms", "free_at_ms"), [(9500, 19_000), (500, 10_000)])
def test_each_outcome_gives_back_its_own_permit(took_ms: float, free_at_ms: int) -> None:
    """The other call keeps its permit until that times out, neither longer nor shorter."""
    breaker, now_ms = half_opened(replace(POLICY, slow_call_ms=60_000, trials=5))
    assert breaker.allow(now_ms + 9000, HIGH)
    outcome(breaker, True, now_ms + 9500, took_ms=took_ms)
    assert breaker.allow(now_ms + 9600, HIGH)

    assert not breaker.allow(now_ms + free_at_ms - 1, LOW)
    assert breaker.allow(now_ms + free_at_ms, LOW)


@pytest.mark.parametrize("rounded_ms", [-0.999, 0, 0.999])
def test_a_permit_comes_back_however_a_clock_is_rounded(rounded_ms: float) -> None:
    breaker, now_ms = half_opened(replace(POLICY, permits=1))
    outcome(breaker, True, now_ms + 5, took_ms=5 + rounded_ms)

    assert breaker.allow(now_ms + 5, HIGH)


def test_trials_of_the_try_before_count_as_long_as_they_are_on_their_way() -> None:
    breaker, first_ms = half_opened()
    breaker.allow(first_ms, HIGH)
    outcome(breaker, False, first_ms + 5)
    now_ms = first_ms + 5 + ceil(breaker.wait_ms(first_ms + 5))
    assert [breaker.allow(now_ms, LOW) for _ in range(2)] == [True, False]

    outcome(breaker, True, now_ms + 5, took_ms=now_ms + 5 - first_ms)
    assert [breaker.allow(now_ms + 5, LOW) for _ in range(2)] == [True, False]


def test_calls_that_hang_since_before_the_outage_hold_no_permit() -> None:
    """Else it could not be tried before they time out."""
    breaker = Breaker(POLICY)
    assert all(breaker.allow(NOW_MS, LOW) for _ in range(20))
    fail(breaker, 10, NOW_MS)

    assert [breaker.allow(NOW_MS + 500, LOW) for _ in range(3)] == [True, True, False]


# -- what comes late ---------------------------------------------------------


@pytest.mark.parametrize("ok", [True, False])
def test_outcomes_while_it_is_open_change_nothing(ok: bool) -> None:
    breaker = opened()
    before = breaker.wait_ms(NOW_MS)
    for _ in range(30):
        assert outcome(breaker, ok, NOW_MS + 100, took_ms=100.4) is None

    assert breaker.wait_ms(NOW_MS) == before
    assert breaker.failures == 10


def test_who_calls_without_asking_changes_nothing() -> None:
    breaker = opened()

    assert [outcome(breaker, True, NOW_MS + 450, took_ms=1) for _ in range(9)] == [None] * 9
    assert [outcome(breaker, False, NOW_MS + 450, took_ms=1) for _ in range(9)] == [None] * 9
    assert breaker.wait_ms(NOW_MS) == 500


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("before_ms", [-0.9, 0, 0.9, 3000])
def test_calls_of_before_the_opening_are_no_trials(ok: bool, before_ms: float) -> None:
    """They tell of the time before, or hung in a connection that is long gone."""
    breaker, now_ms = half_opened()
    late_ms = now_ms + 20 - NOW_MS + before_ms
    for _ in range(30):
        assert outcome(breaker, ok, now_ms + 20, took_ms=late_ms) is None

    # Nor did they give back the permit of the trial.
    assert [breaker.allow(now_ms + 30, LOW) for _ in range(2)] == [True, False]


def test_calls_of_before_the_opening_do_not_open_it_again() -> None:
    breaker, now_ms = closed_again()
    for _ in range(30):
        assert outcome(breaker, False, now_ms + 9, took_ms=now_ms + 9 - NOW_MS) is None

    assert breaker.failures == 0


def test_a_trial_of_the_try_before_neither_closes_nor_opens() -> None:
    breaker, first_ms = half_opened(replace(POLICY, trials=1))
    breaker.allow(first_ms, HIGH)
    outcome(breaker, False, first_ms + 5)
    now_ms = first_ms + 5 + ceil(breaker.wait_ms(first_ms + 5))
    breaker.allow(now_ms, HIGH)

    assert outcome(breaker, True, now_ms + 9, took_ms=now_ms + 9 - first_ms) is None
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("rounded_ms", [-0.999, 0, 0.999])
def test_a_trial_counts_however_its_clock_is_rounded(rounded_ms: float) -> None:
    breaker, now_ms = half_opened(replace(POLICY, trials=1))

    assert outcome(breaker, True, now_ms + 5, took_ms=5 + rounded_ms) is CLOSED


# -- the way back ------------------------------------------------------------


def let_through(breaker: Breaker, now_ms: int) -> float:
    """Of calls without a permit, how many: with draws spread evenly."""
    for _ in range(POLICY.permits):
        assert breaker.allow(now_ms, HIGH)
    draws = [(n + 0.5) / 1000 for n in range(1000)]
    share = sum(breaker.allow(now_ms, draw) for draw in draws) / 1000
    for _ in range(POLICY.permits):
        outcome(breaker, True, now_ms, took_ms=0)
    return share


def test_after_closing_the_share_rises_from_the_permits_to_all() -> None:
    breaker, now_ms = closed_again()
    shares = [let_through(breaker, now_ms + later_ms) for later_ms in range(0, 3001, 500)]

    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_who_makes_one_call_at_a_time_notices_no_ramp() -> None:
    breaker, now_ms = closed_again(WRITER)
    for at_ms in range(now_ms, now_ms + 3000, 10):
        assert breaker.wait_ms(at_ms) == 0
        assert breaker.allow(at_ms, HIGH)
        outcome(breaker, True, at_ms + 9, took_ms=9)


def test_in_the_ramp_a_no_is_followed_by_a_wait() -> None:
    """A caller that pauses must not spin."""
    breaker, now_ms = closed_again()
    assert [breaker.allow(now_ms + 100, HIGH) for _ in range(3)] == [True, True, False]
    assert breaker.wait_ms(now_ms + 100) == ASK_AGAIN_MS
    assert breaker.wait_ms(now_ms + POLICY.ramp_ms) == 0


def test_without_a_ramp_all_come_back_at_once_and_trials_are_still_few() -> None:
    breaker, now_ms = half_opened(replace(POLICY, ramp_ms=0))
    assert [breaker.allow(now_ms, LOW) for _ in range(3)] == [True, False, False]
    outcome(breaker, True, now_ms + 5)
    assert outcome(breaker, True, now_ms + 5) is CLOSED

    assert all(breaker.allow(now_ms + 5, HIGH) for _ in range(100))


def test_there_is_no_ramp_before_the_first_opening() -> None:
    breaker = Breaker(POLICY)

    assert all(breaker.allow(NOW_MS, HIGH) for _ in range(100))
    assert breaker.wait_ms(NOW_MS) == 0


def test_the_same_draws_give_the_same_answers() -> None:
    def answers(seed: int) -> list[bool]:
        random, (breaker, now_ms) = Random(seed), closed_again()
        return [breaker.allow(now_ms + n * 10, random.random()) for n in range(200)]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


# -- what is shown -----------------------------------------------------------


def test_it_tells_since_when_it_is_open() -> None:
    breaker = Breaker(POLICY)
    assert breaker.describe(NOW_MS) == {"state": "closed", "failures": 0, "openedAt": None}
    fail(breaker, 10, NOW_MS)

    shown = {"state": "open", "failures": 10, "openedAt": NOW_MS}
    assert breaker.describe(NOW_MS + 1) == shown
    assert json.loads(json.dumps(breaker.describe(NOW_MS + 1))) == shown


def test_opening_again_is_the_same_outage() -> None:
    breaker, now_ms = half_opened()
    assert breaker.describe(now_ms)["state"] == "half_open"
    outcome(breaker, False, now_ms + 5)

    assert breaker.opened_at_ms == NOW_MS
    assert breaker.describe(now_ms + 5) == {"state": "open", "failures": 11, "openedAt": NOW_MS}


def test_an_outage_after_the_first_is_another() -> None:
    breaker, now_ms = closed_again()
    fail(breaker, 10, now_ms + 100)

    assert breaker.opened_at_ms == now_ms + 100
