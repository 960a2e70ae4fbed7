"""What is parked gets what the other lanes leave of each campaign's budget, and no more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from ray_tracking.pipeline.append import Header, decode_entry, encode_batch
from ray_tracking.pipeline.parked import Budget
from ray_tracking.pipeline.rate import SLOTS_PER_WINDOW, RatePolicy
from tests.unit.pipeline.samples import NOW_MS, submission

POLICY = RatePolicy(max_events=10, window_ms=5000)
HIGH, NORMAL, PARKED = (3, 0), (3, 1), (3, 2)
AFTER_MS = POLICY.window_ms + POLICY.window_ms // SLOTS_PER_WINDOW + 1


def header(*keys: str, at_ms: int = NOW_MS, appended_ms: int | None = None) -> Header:
    """Of a batch with one event for each key, received at a time."""
    batch = [submission(n, key=key, at_ms=at_ms) for n, key in enumerate(keys)]
    appended_ms = at_ms if appended_ms is None else appended_ms
    fields = encode_batch(batch, total=len(batch), appended_ms=appended_ms)
    return decode_entry(b"1-2", fields).header


def known() -> Budget:
    """The book of a writer that has read all there is in the other lanes."""
    budget = Budget(POLICY)
    budget.knows(HIGH, None)
    budget.knows(NORMAL, None)
    return budget


def test_what_the_other_lanes_leave_may_be_written() -> None:
    budget = known()
    budget.spend(NORMAL, header(*["c1"] * 7), now_ms=NOW_MS)

    assert not budget.take(PARKED, header(*["c1"] * 4), now_ms=NOW_MS)
    assert budget.take(PARKED, header(*["c1"] * 3), now_ms=NOW_MS)
    assert not budget.take(PARKED, header("c1"), now_ms=NOW_MS)
    assert budget.take(PARKED, header("c1"), now_ms=NOW_MS + AFTER_MS)


def test_campaigns_have_budgets_of_their_own() -> None:
    budget = known()
    budget.spend(NORMAL, header(*["c1"] * 10), now_ms=NOW_MS)

    assert budget.take(PARKED, header("c2"), now_ms=NOW_MS)


def test_an_entry_goes_when_every_campaign_in_it_may() -> None:
    """And costs nobody anything while it waits."""
    budget = known()
    budget.spend(NORMAL, header(*["c1"] * 10), now_ms=NOW_MS)

    assert not budget.take(PARKED, header("c2", "c1"), now_ms=NOW_MS)
    assert budget.take(PARKED, header(*["c2"] * 10), now_ms=NOW_MS)


def test_an_entry_that_is_larger_than_a_window_goes_when_the_window_is_empty() -> None:
    budget = known()
    large = header(*["c1"] * 25)
    budget.spend(NORMAL, header("c1"), now_ms=NOW_MS)

    assert not budget.take(PARKED, large, now_ms=NOW_MS)
    assert budget.take(PARKED, large, now_ms=NOW_MS + AFTER_MS)
    assert not budget.take(PARKED, header("c1"), now_ms=NOW_MS + AFTER_MS)


def test_each_event_of_an_entry_counts_from_when_it_came_in() -> None:
    """Also where an entry holds some that the window has left behind, and some that it has not."""
    budget = known()
    batch = [submission(n, key="c1", at_ms=NOW_MS - n * AFTER_MS) for n in (0, 1)]
    fields = encode_batch(batch, total=2, appended_ms=NOW_MS)
    budget.spend(NORMAL, decode_entry(b"1-2", fields).header, now_ms=NOW_MS)

    assert not budget.take(PARKED, header(*["c1"] * 10), now_ms=NOW_MS)
    assert budget.take(PARKED, header(*["c1"] * 9), now_ms=NOW_MS)


def test_a_row_counts_from_when_its_event_came_in() -> None:
    """A backlog that is written late was admitted in the windows of its time."""
    budget = known()
    budget.spend(NORMAL, header(*["c1"] * 10, at_ms=NOW_MS - AFTER_MS), now_ms=NOW_MS)
    budget.knows(NORMAL, None)
    assert budget.take(PARKED, header("c1"), now_ms=NOW_MS)

    late = header(*["c2"] * 10, at_ms=NOW_MS - AFTER_MS, appended_ms=NOW_MS)
    budget.spend(NORMAL, late, now_ms=NOW_MS)
    assert budget.take(PARKED, header(*["c2"] * 10), now_ms=NOW_MS)

    budget.spend(NORMAL, header(*["c3"] * 10, at_ms=NOW_MS - 3000), now_ms=NOW_MS)
    budget.knows(NORMAL, None)
    assert not budget.take(PARKED, header("c3"), now_ms=NOW_MS)
    assert budget.take(PARKED, header("c3"), now_ms=NOW_MS + AFTER_MS - 3000)


def test_a_sender_whose_clock_is_ahead_does_not_shut_its_campaign() -> None:
    budget = known()
    budget.spend(NORMAL, header(*["c1"] * 10, at_ms=NOW_MS + 10**9), now_ms=NOW_MS)

    assert budget.take(PARKED, header("c1"), now_ms=NOW_MS + AFTER_MS)


def test_what_is_parked_waits_until_the_other_lanes_of_its_partition_are_known() -> None:
    """They may hold events from before it was parked, whose budget that is."""
    budget = Budget(POLICY)
    parked = header("c1", at_ms=NOW_MS)
    budget.knows((7, 0), None)
    budget.knows((7, 1), None)
    assert not budget.take(PARKED, parked, now_ms=NOW_MS)
    budget.knows(HIGH, NOW_MS)
    assert not budget.take(PARKED, parked, now_ms=NOW_MS)
    budget.spend(NORMAL, header("c2", at_ms=NOW_MS - 1), now_ms=NOW_MS)
    assert not budget.take(PARKED, parked, now_ms=NOW_MS)
    budget.spend(NORMAL, header("c2", at_ms=NOW_MS), now_ms=NOW_MS)

    assert budget.take(PARKED, parked, now_ms=NOW_MS)


@given(st.integers(1, 200))
def test_idle_campaigns_are_forgotten(campaigns: int) -> None:
    budget = known()
    for number in range(campaigns):
        budget.spend(NORMAL, header(f"c{number}"), now_ms=NOW_MS)
    later_ms = NOW_MS + AFTER_MS

    budget.spend(NORMAL, header("another", at_ms=later_ms), now_ms=later_ms)

    assert len(budget) == 1


class BudgetMachine(RuleBasedStateMachine):
    """In no window does more parked become rows than the limit leaves, but for large entries."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = known()
        self.now_ms = NOW_MS
        self.written: list[int] = []

    @rule(count=st.integers(1, 4))
    @precondition(lambda self: self.in_window() + 4 <= POLICY.max_events)
    def other_lanes(self, count: int) -> None:
        """Admission lets no more through than fits."""
        self.budget.spend(NORMAL, header(*["c1"] * count, at_ms=self.now_ms), now_ms=self.now_ms)
        self.written += [self.now_ms] * count

    @rule(count=st.integers(1, POLICY.max_events))
    def parked(self, count: int) -> None:
        before = self.in_window()
        if self.budget.take(PARKED, header(*["c1"] * count), now_ms=self.now_ms):
            self.written += [self.now_ms] * count
            assert self.in_window() <= POLICY.max_events
        else:
            # A slot is forgotten when all of it has left the window.
            slack_ms = POLICY.window_ms // SLOTS_PER_WINDOW
            assert self.in_window(slack_ms) + count > POLICY.max_events or not before

    @rule(wait_ms=st.integers(1, 3000))
    def time_passes(self, wait_ms: int) -> None:
        self.now_ms += wait_ms

    def in_window(self, slack_ms: int = 0) -> int:
        start = self.now_ms - POLICY.window_ms - slack_ms
        return sum(at > start for at in self.written)


TestBudget = BudgetMachine.TestCase
TestBudget.settings = settings(max_examples=50, stateful_step_count=40)
