"""Admission: an event is in the log once, and an answer says what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ray_tracking.pipeline.admit import Partition
from ray_tracking.pipeline.append import EntryId, decode_entry
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import (
    AWAY,
    RETRY_AFTER_S,
    UNAVAILABLE,
    Append,
    Reservation,
    State,
)
from ray_tracking.pipeline.route import HIT, SINGLE, Identity, Submission, received_ms
from ray_tracking.pipeline.window import BUCKETS_PER_WINDOW
from tests.unit.pipeline.owners import (
    EPOCH,
    FULL,
    HIGH,
    NORMAL,
    PARKED,
    POLICY,
    Log,
    commit_all,
    on_its_way,
    one_event,
    owner,
    reserve,
    successor,
)
from tests.unit.pipeline.samples import NOW_MS, submission


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of events, appends, refusals, doubts, waits and crashes keeps the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.partition = owner()
        self.minted = 0
        self.sent: list[Submission] = []
        self.log: Log = [[], [], []]
        self.stored = [EntryId(0, 0)] * 3
        self.trimmed_before = [EntryId(0, 0)] * 3
        #: What the log has, and where.
        self.committed: dict[bytes, tuple[Submission, tuple[int, int, int, int, int]]] = {}
        #: What has a place and is not in the log.
        self.waiting: list[tuple[Reservation, Submission, int]] = []
        self.repeats: list[tuple[Reservation, bytes]] = []
        #: When something was charged that stands.
        self.charged: dict[bytes, tuple[int, bool]] = {}

    # -- events ----------------------------------------------------------------

    @rule(
        digest=st.integers(0, 8),
        occurred_us=st.sampled_from([0, 1, 799_999, 800_000, 2_000_000]),
        lane=st.sampled_from([HIGH, NORMAL]),
        flags=st.sampled_from([0, 0, SINGLE, HIT]),
        size=st.integers(1, 600),
        shut=st.sampled_from([None, None, None, FULL]),
    )
    def send(
        self, digest: int, occurred_us: int, lane: int, flags: int, size: int, shut: Outcome | None
    ) -> None:
        self.minted += 1
        new = submission(
            self.minted,
            at_ms=self.now_ms,
            digest=digest,
            identity=Identity(digest % 3),
            occurred_us=occurred_us,
            lane=lane,
            flags=flags,
            row=b"r" * size,
        )
        self.offer(new, shut)

    @precondition(lambda self: self.recent())
    @rule(data=st.data(), shut=st.sampled_from([None, None, FULL]))
    def repeat(self, data: st.DataObject, shut: Outcome | None) -> None:
        """The same event again, from inside the system: a call that got no answer."""
        self.offer(data.draw(st.sampled_from(self.recent()[-10:])), shut)

    def recent(self) -> list[Submission]:
        """What may be offered again: for so long more than its window an identity is held."""
        horizon_ms = self.now_ms - POLICY.window.longest_ms // BUCKETS_PER_WINDOW
        return [new for new in self.sent if received_ms(new.event_id) > horizon_ms]

    def offer(self, new: Submission, shut: Outcome | None) -> None:
        self.sent.append(new)
        shut_out = shut or (AWAY if self.partition.unclear else None)
        room = len(self.charged_within(self.now_ms))
        result = self.partition.offer(new, now_ms=self.now_ms, shut=shut)
        known = {
            event_id: position
            for event_id, (old, position) in self.committed.items()
            if one_event(POLICY.window, new, old)
        }
        held = [
            (append.append, append.index, old.event_id)
            for append, old, _ in self.waiting
            if one_event(POLICY.window, new, old)
        ]
        if known:
            assert isinstance(result, Outcome)
            if new.event_id in known and result.verdict is Verdict.ACCEPTED:
                assert result.position == known[new.event_id]
            else:
                assert result.verdict is Verdict.DUPLICATE
                assert result.first_id in known
                assert result.position == known[result.first_id]
        elif shut_out and new.event_id not in [event_id for _, _, event_id in held]:
            assert result == shut_out
        elif result == UNAVAILABLE:
            # The event itself, and nobody knows of it: it is never called away.
            assert State.UNCLEAR in [
                append.state for append, _, event_id in held if event_id == new.event_id
            ]
        elif held:
            assert isinstance(result, Reservation)
            firsts = {(append, index): event_id for append, index, event_id in held}
            first = firsts[result.append, result.index]
            assert result.is_repeat == (first != new.event_id)
            self.repeats.append((result, first))
        elif isinstance(result, Outcome):
            assert result.verdict is Verdict.LIMITED
            assert not new.flags & HIT
            assert result.retry_after_s > 0
            assert room >= POLICY.rate.max_events or new.flags & SINGLE
        else:
            self.waiting.append((result, new, self.now_ms))
            assert not result.is_repeat
            if result.append.lane == PARKED:
                assert new.flags & HIT
                assert room >= POLICY.rate.max_events
            else:
                assert result.append.lane == new.lane
                self.charged[new.event_id] = (self.now_ms, bool(new.flags & SINGLE))

    # -- the log ---------------------------------------------------------------

    @rule()
    def take(self) -> None:
        busy = self.in_flight()
        taken = self.partition.take(now_ms=self.now_ms)
        assert not (busy and taken)
        assert len({append.lane for append in taken}) == len(taken)
        for append in taken:
            assert append.state is State.SENT
            assert append.id == self.partition.last_id(append.lane)._replace(
                seq=self.partition.next_seq[append.lane]
            )
            assert 1 <= len(append.submissions) <= POLICY.max_entry_events
            assert append.size_bytes <= POLICY.max_entry_bytes or len(append.submissions) == 1

    def in_flight(self) -> list[Append]:
        return list(
            dict.fromkeys(place.append for place, _, _ in self.waiting if on_its_way(place.append))
        )

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "refused", "unclear"]))
    def hear(self, data: st.DataObject, outcome: str) -> None:
        append = data.draw(st.sampled_from(self.in_flight()))
        assert append.id is not None
        if append.state is State.UNCLEAR:
            # A repeat: the same id and bytes, until it is there.
            assert append in self.partition.repeats()
            outcome = "ok"
        if outcome == "ok":
            self.write(append)
            self.partition.committed(append, now_ms=self.now_ms)
        elif outcome == "refused":
            self.partition.refused(append)
        else:
            self.partition.became_unclear(append)
            assert self.partition.take(now_ms=self.now_ms) == []
        self.settle()

    @rule()
    def let_go(self) -> None:
        """The log is out of reach: what was not sent is given back."""
        self.partition.refuse_waiting()
        assert not self.partition.has_waiting
        self.settle()

    def write(self, append: Append) -> None:
        assert append.id is not None
        self.log[append.lane].append((append.id, dict(append.fields)))
        for index, new in enumerate(append.submissions):
            position = (3, append.lane, *append.id, index)
            self.committed[new.event_id] = (new, position)

    def settle(self) -> None:
        """Everybody whose append is over is told the truth."""
        still = []
        for place, new, at_ms in self.waiting:
            state = place.append.state
            if state in (State.OPEN, State.SENT):
                still.append((place, new, at_ms))
                continue
            outcome = place.outcome()
            if state is State.DONE:
                assert outcome == Outcome(Verdict.ACCEPTED, self.committed[new.event_id][1])
            elif state is State.UNCLEAR:
                assert outcome == UNAVAILABLE
                still.append((place, new, at_ms))
            else:
                assert outcome == AWAY
                self.charged.pop(new.event_id, None)
        self.waiting = still
        for place, first in self.repeats:
            if place.append.state is State.DONE:
                position = self.committed[first][1]
                if place.is_repeat:
                    assert place.outcome() == Outcome(Verdict.DUPLICATE, position, first)
                else:
                    assert place.outcome() == Outcome(Verdict.ACCEPTED, position)
        self.repeats = [
            (place, first)
            for place, first in self.repeats
            if place.append.state in (State.OPEN, State.SENT)
        ]

    # -- time and owners -------------------------------------------------------

    @rule(ms=st.integers(0, 300) | st.sampled_from([799, 800, 2400, 3030]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(data=st.data())
    def housekeeping(self, data: st.DataObject) -> None:
        """Forget, and trim the log behind the writer, who is somewhere in it."""
        self.partition.expire(self.now_ms)
        for lane, entries in enumerate(self.log):
            ids = [entry_id for entry_id, _ in entries if entry_id >= self.stored[lane]]
            if ids:
                self.stored[lane] = data.draw(st.sampled_from(ids))
            keep_from = self.partition.keep_from(lane, self.stored[lane])
            assert keep_from <= self.stored[lane]
            assert keep_from <= max([entry_id for entry_id, _ in entries], default=keep_from)
            self.log[lane] = [entry for entry in entries if entry[0] >= keep_from]

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A successor reads the log, and knows what its predecessor knew."""
        for append in self.in_flight():
            if data.draw(st.booleans()):
                self.write(append)  # sent, but nobody heard
        old, new = self.partition, successor(self.log, now_ms=self.now_ms)
        for append in self.in_flight():
            if append.id in dict(self.log[append.lane]):
                old.committed(append, now_ms=self.now_ms)
        for sent in self.recent():
            seen, before = new.window.find(sent), old.window.find(sent)
            if seen != before:  # where two are near enough, either may be named
                assert seen is not None
                assert before is not None
                for first in (seen, before):
                    assert one_event(POLICY.window, sent, self.committed[first.event_id][0])
        new.epoch = max(new.epoch, old.epoch + 1)
        self.partition = new
        self.waiting.clear()
        self.repeats.clear()
        self.charged = {
            event_id: (at_ms, False)  # a burst is over before a successor stands
            for event_id, (at_ms, _) in self.charged.items()
            if event_id in self.committed
        }

    # -- promises --------------------------------------------------------------

    def charged_within(self, now_ms: int) -> list[int]:
        slack_ms = POLICY.rate.window_ms // 100
        horizon_ms = now_ms - POLICY.rate.window_ms - slack_ms
        return [at_ms for at_ms, _ in self.charged.values() if at_ms > horizon_ms]

    @invariant()
    def no_event_is_in_the_log_twice(self) -> None:
        recent = [old for old, _ in list(self.committed.values())[-25:]]
        for one, other in combinations(recent, 2):
            assert not one_event(POLICY.window, one, other)

    @invariant()
    def ids_have_no_gaps(self) -> None:
        for entries in self.log:
            for (before, _), (after, _) in pairwise(entries):
                if after.epoch == before.epoch:
                    assert after.seq == before.seq + 1
                else:
                    assert after.seq == 2

    @invariant()
    def no_window_has_too_many(self) -> None:
        times = [at_ms for at_ms, _ in self.charged.values()]
        alone = [at_ms for at_ms, single in self.charged.values() if single]
        for start in times:
            assert sum(start <= at < start + POLICY.rate.window_ms for at in times) <= 12
            assert sum(start <= at < start + 1000 for at in alone) <= 4

    @invariant()
    def nothing_is_lost_on_the_way(self) -> None:
        appends = {place.append for place, _, _ in self.waiting}
        assert sum(len(append.submissions) for append in appends) == len(self.waiting)
        is_open = [append.state is State.OPEN for append in appends]
        assert self.partition.has_waiting == any(is_open)


AdmissionMachine.TestCase.settings = settings(stateful_step_count=40)
test_admission_keeps_its_promises = AdmissionMachine.TestCase


# -- one thing at a time -----------------------------------------------------


def test_an_event_that_never_reached_the_log_may_be_sent_again() -> None:
    """Otherwise the sender's retry would be a duplicate of an event that nobody has."""
    partition = owner()
    place = reserve(partition, submission(1, digest=9))
    (append,) = partition.take(now_ms=NOW_MS)
    partition.refused(append)

    assert place.outcome() == Outcome(Verdict.AWAY, retry_after_s=RETRY_AFTER_S)
    again = reserve(partition, submission(2, digest=9))
    (append,) = commit_all(partition)
    assert again.outcome() == Outcome(Verdict.ACCEPTED, (3, NORMAL, EPOCH, 2, 0))
    assert append.id == EntryId(EPOCH, 2)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_duplicate_of_a_reserved_event_waits_for_its_outcome(arrives: bool) -> None:
    partition = owner()
    first = submission(1, digest=9)
    reserve(partition, first)
    duplicate = reserve(partition, submission(2, digest=9))
    (append,) = partition.take(now_ms=NOW_MS)
    late = reserve(partition, submission(3, digest=9))
    assert append.submissions == [first]

    if arrives:
        partition.committed(append, now_ms=NOW_MS)
        expected = Outcome(Verdict.DUPLICATE, (3, NORMAL, EPOCH, 2, 0), first.event_id)
    else:
        partition.refused(append)
        expected = AWAY
    assert duplicate.outcome() == late.outcome() == expected


def test_the_same_event_repeated_inside_the_system_is_accepted_where_it_stands() -> None:
    """Its sender is told 202: it was never told anything about the first try."""
    partition = owner()
    new = submission(1)
    places = [reserve(partition, new), reserve(partition, new)]
    commit_all(partition)

    accepted = Outcome(Verdict.ACCEPTED, (3, NORMAL, EPOCH, 2, 0))
    assert [place.outcome() for place in places] == [accepted] * 2
    assert partition.offer(new, now_ms=NOW_MS) == accepted


def test_while_an_append_is_unclear_nothing_new_is_taken_and_nothing_is_forgotten() -> None:
    partition = owner()
    known = submission(1)
    reserve(partition, known)
    commit_all(partition)
    doubtful, waiting = submission(2), submission(3)
    reserve(partition, doubtful)
    (append,) = partition.take(now_ms=NOW_MS)
    fields = append.fields
    behind = reserve(partition, waiting)
    partition.became_unclear(append)

    assert partition.unclear
    assert partition.take(now_ms=NOW_MS) == []
    assert behind.outcome() == AWAY
    assert partition.offer(doubtful, now_ms=NOW_MS) == UNAVAILABLE
    for refused in (waiting, submission(4), submission(6, digest=2)):
        assert partition.offer(refused, now_ms=NOW_MS) == AWAY
    duplicate = partition.offer(submission(5, digest=1), now_ms=NOW_MS)
    assert duplicate == Outcome(Verdict.DUPLICATE, (3, NORMAL, EPOCH, 2, 0), known.event_id)

    (repeat,) = partition.repeats()
    assert (repeat.id, repeat.fields) == (EntryId(EPOCH, 3), fields)
    partition.committed(repeat, now_ms=NOW_MS)
    assert not partition.unclear
    accepted = Outcome(Verdict.ACCEPTED, (3, NORMAL, EPOCH, 3, 0))
    assert partition.offer(doubtful, now_ms=NOW_MS) == accepted
    reserve(partition, waiting)


def test_while_it_is_shut_what_is_known_is_still_told_and_nothing_gets_a_place() -> None:
    """A full buffer is no reason to let a client send again what the log has."""
    partition = owner()
    known, under_way = submission(1), submission(2)
    reserve(partition, known)
    commit_all(partition)
    reserve(partition, under_way)
    (append,) = partition.take(now_ms=NOW_MS)

    def told(new: Submission) -> Outcome | Reservation:
        return partition.offer(new, now_ms=NOW_MS, shut=FULL)

    position = (3, NORMAL, EPOCH, 2, 0)
    assert told(known) == Outcome(Verdict.ACCEPTED, position)
    assert told(submission(3, digest=1)) == Outcome(Verdict.DUPLICATE, position, known.event_id)
    assert told(under_way) == Reservation(append, 0)
    # Of another one nobody can say yet whether it is a duplicate: it must not wait.
    assert told(submission(4, digest=2)) == told(submission(5)) == FULL
    assert not partition.has_waiting


def test_what_was_not_sent_can_be_let_go_and_what_was_keeps_its_place() -> None:
    partition = owner()
    sent = reserve(partition, submission(1))
    (append,) = partition.take(now_ms=NOW_MS)
    waiting = [reserve(partition, submission(n, lane=n % 2)) for n in range(2, 9)]
    assert partition.has_waiting
    partition.refuse_waiting()

    assert not partition.has_waiting
    assert [place.outcome() for place in waiting] == [AWAY] * 7
    partition.committed(append, now_ms=NOW_MS)
    assert sent.outcome().verdict is Verdict.ACCEPTED
    for n in range(2, 9):
        reserve(partition, submission(n, lane=n % 2))


def test_doubt_in_one_lane_leaves_the_append_of_another_its_own_outcome() -> None:
    partition = owner()
    places = [reserve(partition, submission(n, lane=n)) for n in (HIGH, NORMAL)]
    high, normal = sorted(partition.take(now_ms=NOW_MS), key=lambda append: append.lane)
    partition.became_unclear(high)
    partition.committed(normal, now_ms=NOW_MS)

    assert partition.unclear
    assert [place.outcome().verdict for place in places] == [
        Verdict.UNAVAILABLE,
        Verdict.ACCEPTED,
    ]


def test_one_append_a_lane_is_on_its_way_and_ids_follow_each_other() -> None:
    partition = owner()
    for n in range(8):
        reserve(partition, submission(n, lane=NORMAL))
    reserve(partition, submission(8, lane=HIGH))

    first = partition.take(now_ms=NOW_MS)
    assert {append.lane: len(append.submissions) for append in first} == {NORMAL: 3, HIGH: 1}
    assert partition.take(now_ms=NOW_MS) == []
    partition.committed(first[0], now_ms=NOW_MS)
    assert partition.take(now_ms=NOW_MS) == []
    partition.committed(first[1], now_ms=NOW_MS)

    rest = commit_all(partition)
    normal = [append for append in [*first, *rest] if append.lane == NORMAL]
    assert [append.id for append in normal] == [EntryId(EPOCH, seq) for seq in (2, 3, 4)]
    order = [new.event_id for append in normal for new in append.submissions]
    assert order == [submission(n).event_id for n in range(8)]
    assert partition.totals == [1, 8, 0]


def test_an_entry_has_no_more_bytes_than_it_should_unless_one_event_has() -> None:
    partition = owner()
    for n, size in enumerate((500, 300, 300, 5000, 10)):
        reserve(partition, submission(n, row=b"r" * size))

    sizes = [[len(new.row) for new in append.submissions] for append in commit_all(partition)]
    assert sizes == [[500, 300], [300], [5000], [10]]


def test_every_entry_tells_how_many_events_its_lane_has_had() -> None:
    """The books can be closed from any entry."""
    partition = Partition(3, POLICY, epoch=EPOCH, totals=[5, 100, 0])
    for n in range(5):
        reserve(partition, submission(n))
    headers = []
    while appends := partition.take(now_ms=NOW_MS + 7):
        for append in appends:
            headers.append(decode_entry(str(append.id).encode(), append.fields).header)
            partition.committed(append, now_ms=NOW_MS + 9)

    assert [(header.count, header.total) for header in headers] == [(3, 103), (2, 105)]
    assert {header.appended_ms for header in headers} == {NOW_MS + 7}


# -- what must stay in the log -----------------------------------------------


def filled(ages_ms: Iterable[int]) -> Partition:
    """An owner that committed one entry each so long ago; ids from ``EPOCH-2`` on."""
    partition = owner()
    for n, age_ms in enumerate(ages_ms):
        reserve(partition, submission(n, at_ms=NOW_MS - age_ms), now_ms=NOW_MS - age_ms)
        commit_all(partition, now_ms=NOW_MS - age_ms)
    partition.expire(NOW_MS)
    return partition


@pytest.mark.parametrize(
    ("ages_ms", "stored_seq", "kept_seq"),
    [
        ([9000, 8000, 2000, 0], 5, 4),  # the windows need it
        ([9000, 8000, 2000, 0], 3, 3),  # the writer has not come so far
        ([9000, 8000, 3000], 4, 4),
        ([9000, 8000], 3, 3),  # all over: the last one stays
        ([9000, 8000], 9, 3),  # a position that is ahead of the log is none
        ([], 1, 1),
    ],
)
def test_the_log_keeps_what_the_writer_or_the_windows_need_and_its_last_entry(
    ages_ms: list[int], stored_seq: int, kept_seq: int
) -> None:
    partition = filled(ages_ms)

    assert partition.keep_from(NORMAL, EntryId(EPOCH, stored_seq)) == EntryId(EPOCH, kept_seq)
    assert partition.keep_from(HIGH, EntryId(EPOCH, 1)) == EntryId(EPOCH, 1)


def test_a_successor_keeps_what_it_was_restored_from() -> None:
    before = owner()
    reserve(before, submission(1))
    (append,) = before.take(now_ms=NOW_MS)
    after = successor([[], [(append.id, append.fields)], []], now_ms=NOW_MS)  # type: ignore[list-item]

    assert after.keep_from(NORMAL, EntryId(EPOCH + 1, 1)) == append.id


def test_a_successor_judges_as_its_predecessor_would_have() -> None:
    """Duplicates and rate, also of events that went through two lanes."""
    before = owner()
    log: Log = [[], [], []]
    for n in range(9):
        at_ms = NOW_MS + 300 * n
        new = submission(n, at_ms=at_ms, lane=n % 2, identity=Identity(n % 3))
        reserve(before, new, now_ms=at_ms)
        for append in before.take(now_ms=at_ms):
            log[append.lane].append((append.id, append.fields))  # type: ignore[arg-type]
            before.committed(append, now_ms=at_ms)
    now_ms = NOW_MS + 2700
    after = successor(log, now_ms=now_ms)

    def verdicts(partition: Partition) -> list[Any]:
        again = [
            partition.offer(
                submission(50 + n, at_ms=now_ms, digest=n, identity=Identity(n % 3)),
                now_ms=now_ms,
            )
            for n in range(20)
        ]
        return [result if isinstance(result, Outcome) else "new" for result in again]

    assert verdicts(after) == verdicts(before)
    assert "new" in verdicts(successor(log, now_ms=now_ms))
