"""Admission and the rate: what an event costs, what a refusal gives back, what is past both."""

from __future__ import annotations

import pytest

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.admit import Partition
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import AWAY, Reservation
from ray_tracking.pipeline.route import HIT, REDRIVE, SINGLE, Submission
from tests.unit.pipeline.owners import (
    EPOCH,
    FULL,
    NORMAL,
    PARKED,
    POLICY,
    append_all,
    commit_all,
    owner,
    reserve,
    successor,
)
from tests.unit.pipeline.samples import NOW_MS, submission


def over_the_rate(partition: Partition, flags: int = 0) -> tuple[int, Submission]:
    """Use up a campaign's budget: how many it was still good for, and the first event over it."""
    for n in range(100):
        new = submission(1000 + n, flags=flags)
        if not isinstance(partition.offer(new, now_ms=NOW_MS), Reservation):
            return n, new
    raise AssertionError("there is no limit")


def test_a_duplicate_costs_no_budget() -> None:
    """A client that retries is not slowed down for retrying."""
    partition = owner()
    for n in range(12):
        first = reserve(partition, submission(n))
        for _ in range(3):
            assert reserve(partition, submission(100 + n, digest=n)).append is first.append
        commit_all(partition)
        for _ in range(3):
            duplicate = partition.offer(submission(200 + n, digest=n), now_ms=NOW_MS)
            assert isinstance(duplicate, Outcome)
            assert duplicate.verdict is Verdict.DUPLICATE


def test_a_duplicate_is_known_as_one_also_over_the_rate() -> None:
    partition = owner()
    over_the_rate(partition)
    commit_all(partition)

    duplicate = partition.offer(submission(99, digest=1000), now_ms=NOW_MS)
    assert isinstance(duplicate, Outcome)
    assert duplicate.verdict is Verdict.DUPLICATE


def test_over_the_rate_an_event_is_limited_and_a_hit_parked() -> None:
    """Nobody can ask a mail client to come again."""
    partition = owner()
    _, over = over_the_rate(partition)
    limited = partition.offer(over, now_ms=NOW_MS)
    assert isinstance(limited, Outcome)
    assert limited.verdict is Verdict.LIMITED
    assert 3 <= limited.retry_after_s <= 3.03

    hit = reserve(partition, submission(50, flags=HIT))
    again = reserve(partition, submission(51, digest=50, flags=HIT))
    commit_all(partition)
    assert LANES[hit.append.lane] is Lane.PARKED
    assert hit.outcome() == Outcome(Verdict.ACCEPTED, (3, PARKED, EPOCH, 2, 0))
    assert again.outcome().verdict is Verdict.DUPLICATE


def test_single_events_are_held_to_the_burst_limit() -> None:
    partition = owner()

    assert over_the_rate(partition, SINGLE)[0] == POLICY.rate.burst
    reserve(partition, submission(50))


@pytest.mark.parametrize("flags", [0, SINGLE])
def test_what_the_log_refused_is_paid_back(flags: int) -> None:
    partition = owner()
    admitted, _ = over_the_rate(partition, flags)
    while appends := partition.take(now_ms=NOW_MS):
        for append in appends:
            partition.refused(append)

    assert over_the_rate(partition, flags)[0] == admitted


def test_a_refused_parked_hit_pays_back_nothing() -> None:
    """It was never charged."""
    partition = owner()
    _, limited = over_the_rate(partition)
    commit_all(partition)
    reserve(partition, submission(50, flags=HIT))
    (append,) = partition.take(now_ms=NOW_MS)
    partition.refused(append)

    assert isinstance(partition.offer(limited, now_ms=NOW_MS), Outcome)


def test_what_became_unclear_stays_paid_and_what_waited_behind_it_does_not() -> None:
    partition = owner()
    for n in range(6):
        reserve(partition, submission(n))
    (append,) = partition.take(now_ms=NOW_MS)
    partition.became_unclear(append)
    partition.committed(append, now_ms=NOW_MS)

    assert over_the_rate(partition)[0] == 12 - 3


@pytest.mark.parametrize("flags", [0, SINGLE])
def test_what_was_let_go_is_paid_back(flags: int) -> None:
    partition = owner()
    admitted, _ = over_the_rate(partition, flags)
    partition.refuse_waiting()

    assert over_the_rate(partition, flags)[0] == admitted


# -- dead letters sent again -------------------------------------------------


def letter(n: int, *, flags: int = 0, digest: int | None = None) -> Submission:
    """A dead letter on its way to the log once more."""
    return submission(n, flags=REDRIVE | flags, digest=digest)


@pytest.mark.parametrize("flags", [0, SINGLE, HIT])
def test_a_redriven_letter_is_past_the_window_and_the_rate(flags: int) -> None:
    """The log has it already, under the same id: that is why it must go there again."""
    partition = owner()
    first = submission(1)
    reserve(partition, first)
    commit_all(partition)
    over_the_rate(partition)
    commit_all(partition)

    place = reserve(partition, letter(1, flags=flags))
    other = reserve(partition, letter(2, digest=1, flags=flags))
    commit_all(partition)
    for outcome in (place.outcome(), other.outcome()):
        assert outcome.verdict is Verdict.ACCEPTED
        assert outcome.position is not None
        assert outcome.position[1] == NORMAL


@pytest.mark.parametrize("flags", [0, SINGLE])
def test_a_redriven_letter_costs_nothing_and_pays_nothing_back(flags: int) -> None:
    """Paid back without having been charged, it would let one more of the others through."""
    partition = owner()
    first_place = reserve(partition, letter(1, flags=flags))
    partition.refuse_waiting()
    admitted, over = over_the_rate(partition, flags)
    commit_all(partition)
    places = [reserve(partition, letter(n, flags=flags)) for n in (2, 3)]
    (append,) = partition.take(now_ms=NOW_MS)
    partition.refused(append)

    assert [place.outcome() for place in (first_place, *places)] == [AWAY] * 3
    assert admitted == (POLICY.rate.burst if flags else POLICY.rate.max_events)
    still = partition.offer(over, now_ms=NOW_MS)
    assert isinstance(still, Outcome)
    assert still.verdict is Verdict.LIMITED


def test_a_successor_does_not_charge_what_was_redriven() -> None:
    before, log = owner(), [[], [], []]
    for n in range(5):
        reserve(before, letter(n))
    append_all(before, log)

    after = successor(log, now_ms=NOW_MS)
    assert over_the_rate(after)[0] == POLICY.rate.max_events


def test_a_redriven_letter_gets_no_place_while_there_is_none() -> None:
    """It stays a dead letter; nobody waits for it."""
    partition = owner()
    assert partition.offer(letter(1), now_ms=NOW_MS, shut=FULL) == FULL

    reserve(partition, submission(2))
    (append,) = partition.take(now_ms=NOW_MS)
    partition.became_unclear(append)
    assert partition.offer(letter(1), now_ms=NOW_MS) == AWAY
