"""Several events offered at once are admitted as they would be one by one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.admit import AdmissionPolicy, Partition
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import Offered, Run, outcomes_of
from ray_tracking.pipeline.route import HIT, REDRIVE, SINGLE, Identity, Submission
from tests.unit.pipeline.owners import FULL, NORMAL, POLICY, Log, append_all, owner, reserve
from tests.unit.pipeline.samples import NOW_MS, submission

_EVENTS = st.tuples(
    st.integers(0, 40),
    st.sampled_from(["a", "a", "b"]),
    st.sampled_from([0] * 20 + [SINGLE, HIT, REDRIVE]),
    st.integers(1, 600),
)
#: Events that come at once, whether each came alone, how long after those before, and whether
#: the log has them then.
_CALLS = st.tuples(
    st.lists(_EVENTS, min_size=1, max_size=8), st.booleans(), st.integers(0, 900), st.booleans()
)


def one_by_one(partition: Partition, events: Sequence[Submission], now_ms: int) -> Offered:
    return [partition.offer(event, now_ms=now_ms) for event in events]


def shown(event: Submission, outcome: Outcome) -> Outcome:
    """What matters of an outcome: nobody asks where an event of a batch stands."""
    new_in_batch = outcome.verdict is Verdict.ACCEPTED and not event.flags & SINGLE
    return Outcome(Verdict.ACCEPTED) if new_in_batch else outcome


@given(st.lists(_CALLS, max_size=8))
def test_together_is_as_one_by_one(
    calls: list[tuple[list[tuple[int, str, int, int]], bool, int, bool]],
) -> None:
    apart, together = owner(), owner()
    logs: list[Log] = [[[], [], []], [[], [], []]]
    told: list[tuple[list[Submission], Offered, Offered]] = []

    def append(now_ms: int) -> None:
        ones, others = (
            append_all(partition, log, now_ms=now_ms)
            for partition, log in zip((apart, together), logs, strict=True)
        )
        assert ones == others

    now_ms, number = NOW_MS, 0
    for drawn, single, later_ms, lands in calls:
        now_ms += later_ms
        events = []
        for digest, key, flags, size in drawn:
            number += 1
            events.append(
                submission(
                    number, at_ms=now_ms, digest=digest, identity=Identity(digest % 3), key=key,
                    flags=SINGLE if single else flags, row=b"r" * size,
                )
            )  # fmt: skip
        alone = one_by_one(apart, events, now_ms)
        runs = together.offer_together(events, now_ms=now_ms)
        found = runs if runs is not None else one_by_one(together, events, now_ms)
        told.append((events, alone, found))
        if lands:
            append(now_ms)
    append(now_ms)
    assert logs[0] == logs[1]
    for events, alone, found in told:
        pairs = zip(events, outcomes_of(alone), outcomes_of(found), strict=True)
        assert all(shown(event, one) == shown(event, other) for event, one, other in pairs)


def new(number: int, flags: int = 0) -> Submission:
    return submission(number, digest=number, flags=flags)


def test_events_that_nothing_stands_against_get_places_at_once() -> None:
    partition = owner()
    runs = partition.offer_together([new(n, flags=SINGLE) for n in range(4)], now_ms=NOW_MS)
    assert runs is not None
    assert [(run.start, run.stop) for run in runs] == [(0, 3), (0, 1)]  # POLICY: 3 in an entry
    append_all(partition, [[], [], []])
    places = [outcome.position for outcome in outcomes_of(runs)]
    assert places == [
        (3, NORMAL, partition.epoch, seq, index) for seq, index in [(2, 0), (2, 1), (2, 2), (3, 0)]
    ]


def test_one_that_is_known_or_too_much_leaves_all_to_be_asked_one_by_one() -> None:
    limit = POLICY.rate.max_events
    for events in (
        [new(1), new(2)],  # on its way
        [new(3), new(4), submission(5, digest=4)],  # twice among themselves
        [new(n) for n in range(10, 10 + limit)],  # one more than the campaign has left
        [new(6, flags=SINGLE), new(7)],
        [new(8, flags=REDRIVE), new(9, flags=REDRIVE)],
    ):
        partition = owner()
        reserve(partition, new(1))
        assert partition.offer_together(events, now_ms=NOW_MS) is None
        # Nothing was charged and nothing reserved: there is room for all that fits.
        others = [new(100 + n) for n in range(limit - 1)]
        runs = partition.offer_together(others, now_ms=NOW_MS)
        assert runs is not None
        assert sum(run.stop - run.start for run in runs) == limit - 1


def test_while_an_append_is_unclear_they_are_asked_one_by_one() -> None:
    partition = owner()
    reserve(partition, new(1))
    (append,) = partition.take(now_ms=NOW_MS)
    partition.became_unclear(append)
    assert partition.offer_together([new(2)], now_ms=NOW_MS) is None


def test_single_events_are_held_to_the_burst_limit_together() -> None:
    partition = owner()
    burst = POLICY.rate.burst
    first, *more = [new(n, flags=SINGLE) for n in range(burst + 1)]
    assert partition.offer_together([first], now_ms=NOW_MS) is not None
    assert partition.offer_together(more, now_ms=NOW_MS) is None
    assert partition.offer_together(more[1:], now_ms=NOW_MS) is not None


def test_many_are_decided_together_and_what_stands_against_one_is_said_of_it_alone() -> None:
    partition = owner()
    events = [new(n) for n in range(8)]
    assert all(isinstance(one, Run) for one in partition.offer_all(events, now_ms=NOW_MS))
    append_all(partition, [[], [], []])
    mixed = [submission(100, digest=3), *[new(n) for n in range(20, 24)]]
    verdicts = [one.verdict for one in told(partition, mixed * 2)]
    assert verdicts[0] is Verdict.DUPLICATE
    assert verdicts[1:5] == [Verdict.ACCEPTED] * 4


def test_while_it_is_shut_none_of_many_gets_a_place() -> None:
    partition = owner()
    offered = partition.offer_all([new(n) for n in range(9)], now_ms=NOW_MS, shut=FULL)
    assert list(offered) == [FULL] * 9
    assert not partition.has_waiting


def told(partition: Partition, events: Sequence[Submission]) -> list[Outcome]:
    """What becomes of them, once the log has what got a place."""
    offered = partition.offer_all(events, now_ms=NOW_MS)
    append_all(partition, [[], [], []])
    return outcomes_of(offered)


def test_what_was_refused_together_may_be_sent_again_and_is_paid_back() -> None:
    partition = owner()
    events = [new(n) for n in range(POLICY.rate.max_events)]
    runs = partition.offer_together(events, now_ms=NOW_MS)
    assert runs is not None
    partition.refuse_waiting()
    assert {outcome.verdict for outcome in outcomes_of(runs)} == {Verdict.AWAY}
    again = partition.offer_together(events, now_ms=NOW_MS)
    assert again is not None
    assert all(isinstance(run, Run) for run in again)


@given(st.lists(st.integers(1, 400_000), min_size=8, max_size=30))
def test_large_events_fill_entries_as_they_would_one_by_one(sizes: list[int]) -> None:
    events = [submission(n, row=b"x" * size) for n, size in enumerate(sizes)]
    policy = AdmissionPolicy()
    apart, together = owner(policy), owner(policy)
    one_by_one(apart, events, NOW_MS)
    runs = together.offer_all(events, now_ms=NOW_MS)
    assert all(isinstance(run, Run) for run in runs)
    logs: list[Log] = [[[], [], []], [[], [], []]]
    for partition, log in zip((apart, together), logs, strict=True):
        append_all(partition, log)
    assert logs[0] == logs[1]
    # One run for each entry: what is placed is looked at once.
    assert len(runs) == len(logs[1][NORMAL])
