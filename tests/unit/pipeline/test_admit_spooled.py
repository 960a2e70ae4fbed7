"""
Draining a spool: whatever dies on the way, each of its events is in the log once, and is
judged as if it had got there when it came in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ray_tracking.pipeline.admit import Partition
from ray_tracking.pipeline.append import SpoolChunk, decode_entry
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import AWAY, UNAVAILABLE, Append, Reservation, State
from ray_tracking.pipeline.route import HIT, SINGLE, Identity, Submission, received_ms
from ray_tracking.pipeline.window import Window, WindowPolicy
from tests.unit.pipeline.owners import (
    EPOCH,
    FULL,
    HIGH,
    NORMAL,
    PARKED,
    POLICY,
    Log,
    append_all,
    commit_all,
    on_its_way,
    one_event,
    owner,
    reserve,
    successor,
)
from tests.unit.pipeline.samples import NOW_MS, submission

ACCEPTED, DUPLICATE = Verdict.ACCEPTED, Verdict.DUPLICATE
SPOOL = "spool-7"
#: An event is spooled so long after it came in, at most.
MARGIN_MS = 200
HOUR_MS = 3_600_000
#: Remembers the last event.
FORGETFUL = WindowPolicy(dedup_window_ms=8, idempotency_window_ms=8, max_ids=1)


def is_waiting(result: Outcome | Reservation) -> bool:
    """Is nothing known of it yet?"""
    return isinstance(result, Reservation) and result.append.state in (State.OPEN, State.SENT)


def outcome_of(result: Outcome | Reservation) -> Outcome:
    """What became of it."""
    return result.outcome() if isinstance(result, Reservation) else result


#: Of a spooled event: partition, age, digest, lane, flags.
Kind = tuple[int, int, int, int, int]
RECORD_KINDS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, MARGIN_MS),
        st.integers(0, 8),
        st.sampled_from([HIGH, NORMAL]),
        st.sampled_from([0, SINGLE, HIT]),
    ),
    min_size=2,
    max_size=8,
)


#: What becomes of the appends of three lanes.
RESULTS = st.lists(
    st.sampled_from(["ok", "ok", "ok", "refused", "unclear", "slow"]), min_size=3, max_size=3
)


@dataclass
class Call:
    """A chunk that the feeder has sent, and waits for."""

    chunk: SpoolChunk
    results: list[tuple[Submission, Outcome | Reservation]]
    #: Some shard was not reached.
    is_torn: bool


class SpoolMachine(RuleBasedStateMachine):
    """
    A spool with events of two partitions, its feeder, and clients beside it.

    Appends are refused and become unclear; shards die before and after an append of theirs;
    calls tear and lose their answers; the feeder begins again where it once was, and cuts
    other chunks. In half of the runs the windows remember next to nothing.
    """

    @initialize(remembers=st.booleans(), kinds=RECORD_KINDS)
    def begin(self, remembers: bool, kinds: list[Kind]) -> None:
        self.now_ms = NOW_MS
        self.remembers = remembers
        self.policy = POLICY if remembers else replace(POLICY, window=FORGETFUL)
        self.partitions = [owner(self.policy, number) for number in range(2)]
        self.logs: list[Log] = [[[], [], []] for _ in self.partitions]
        self.in_flight: list[list[Append]] = [[] for _ in self.partitions]
        self.minted = 0
        self.spooled: list[tuple[int, Submission]] = []
        self.end = 0
        self.cursor = 0
        #: Where the feeder may begin again.
        self.checkpoints = [0]
        self.call: Call | None = None
        #: Events that went past the spool, and what their clients wait for.
        self.sent: list[tuple[Submission, Outcome | Reservation]] = []
        self.logged: Counter[bytes] = Counter()
        self.events: list[Submission] = []
        #: Spooled events that were recognised as another one.
        self.duplicates: set[bytes] = set()
        self.spool(kinds)

    def event(
        self, partition: int, at_ms: int, digest: int, lane: int = NORMAL, flags: int = 0
    ) -> Submission:
        self.minted += 1
        new = submission(
            self.minted,
            at_ms=at_ms,
            digest=10 * partition + digest,
            identity=Identity(digest % 3),
            key=f"c{partition}",
            lane=lane,
            flags=flags,
        )
        return msgspec.structs.replace(new, partition=partition)

    @property
    def floor_ms(self) -> int:
        """No event in the spool came in before, as far as its feeder may go back."""
        waiting = [new for offset, new in self.spooled if offset >= self.checkpoints[0]]
        first_ms = received_ms(waiting[0].event_id) if waiting else self.now_ms
        return first_ms - MARGIN_MS

    # -- clients ---------------------------------------------------------------

    @rule(kinds=RECORD_KINDS)
    def spool(self, kinds: list[Kind]) -> None:
        """The log is out of reach for some replica; a record for each two events."""
        for number, (partition, age_ms, digest, lane, flags) in enumerate(kinds):
            new = self.event(partition, self.now_ms - age_ms, digest, lane, flags)
            self.spooled.append((self.end + 10 * (number // 2), new))
        self.end += 10 * ((len(kinds) + 1) // 2)

    @rule(partition=st.integers(0, 1), digest=st.integers(0, 6))
    def send(self, partition: int, digest: int) -> None:
        """A client comes, perhaps again, and its event goes to the shard."""
        new = self.event(partition, self.now_ms, digest)
        result = self.partitions[partition].offer(new, now_ms=self.now_ms)
        self.sent.append((new, result))

    @rule()
    def spool_what_is_away(self) -> None:
        """Ingress hears that the log has not got it, and acknowledges it by the spool."""
        for new, result in self.sent:
            in_time = self.now_ms - received_ms(new.event_id) <= MARGIN_MS
            if not is_waiting(result) and outcome_of(result) == AWAY and in_time:
                self.spooled.append((self.end, new))
                self.end += 10
        self.sent = [(new, result) for new, result in self.sent if is_waiting(result)]

    # -- the feeder ------------------------------------------------------------

    @precondition(lambda self: self.call is None and self.cursor < self.end)
    @rule(
        records=st.integers(1, 4),
        reached=st.sampled_from([{0, 1}, {0, 1}, {0, 1}, {0}, {1}]),
        shut=st.sampled_from([None, None, None, None, FULL, AWAY]),
    )
    def feed(self, records: int, reached: set[int], shut: Outcome | None) -> None:
        end = min(self.cursor + 10 * records, self.end)
        chunk = (SPOOL, self.cursor, end)
        results = []
        for offset, new in self.spooled:
            if chunk[1] <= offset < end and new.partition in reached:
                result = self.partitions[new.partition].offer_spooled(
                    new, chunk, offset, now_ms=self.now_ms, shut=shut
                )
                results.append((new, result))
        self.call = Call(chunk, results, is_torn=reached != {0, 1})

    @precondition(lambda self: self.call is not None)
    @rule()
    def hear(self) -> None:
        """The answer comes when nothing of the call is on its way for the first time."""
        assert self.call is not None
        results = self.call.results
        if any(is_waiting(result) for _, result in results):
            return  # it comes later
        done = not self.call.is_torn
        for new, result in results:
            outcome = outcome_of(result)
            if outcome.verdict is DUPLICATE:
                assert outcome.first_id is not None
                assert self.logged[outcome.first_id] == 1
                self.duplicates.add(new.event_id)
            elif outcome.verdict is ACCEPTED:
                # Whoever asks again about what is done hears no more than that it is.
                assert self.logged[new.event_id] == 1 or new.event_id in self.duplicates
            else:
                # It was acknowledged: it cannot be over its rate.
                assert outcome in (AWAY, UNAVAILABLE, FULL)
                done = False
        if done:
            self.cursor = self.call.chunk[2]
            self.checkpoints.append(self.cursor)
        self.call = None

    @precondition(lambda self: self.call is None and self.cursor < self.end)
    @rule(records=st.integers(1, 4), results=st.lists(RESULTS, min_size=2, max_size=2))
    def drain(self, records: int, results: list[list[str]]) -> None:
        """All of a round trip at once, so that long stories come about."""
        self.feed(records, {0, 1}, None)
        for number, of_lanes in enumerate(results):
            self.append(number, of_lanes)
        self.hear()

    @precondition(lambda self: self.call is not None)
    @rule()
    def lose_the_answer(self) -> None:
        self.call = None

    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        """Another process adopts the spool; the last cursors were not written."""
        self.call = None
        self.cursor = data.draw(st.sampled_from(self.checkpoints))

    @rule()
    def write_cursor(self) -> None:
        self.checkpoints = [self.cursor]

    # -- the shards ------------------------------------------------------------

    @rule(number=st.integers(0, 1), results=RESULTS)
    def append(self, number: int, results: list[str]) -> None:
        """One turn of the append loop."""
        partition = self.partitions[number]
        self.in_flight[number] += partition.take(now_ms=self.now_ms)
        for append, result in zip(list(self.in_flight[number]), results, strict=False):
            if result == "slow":
                continue
            if append.state is State.UNCLEAR or result == "ok":
                self.write(append)
                partition.committed(append, now_ms=self.now_ms)
            elif result == "refused":
                partition.refused(append)
            else:
                partition.became_unclear(append)
            if not on_its_way(append):
                self.in_flight[number].remove(append)

    def write(self, append: Append) -> None:
        assert append.id is not None
        fields = dict(append.fields)
        self.logs[append.partition][append.lane].append((append.id, fields))
        self.logged.update(new.event_id for new in append.submissions)
        self.events += append.submissions
        header = decode_entry(str(append.id).encode(), fields).header
        offsets = {new.event_id: offset for offset, new in self.spooled}
        if header.spool is None:
            assert not any(new.event_id in offsets for new in append.submissions)
            return
        spool_id, start, end = header.spool
        assert spool_id == SPOOL
        assert all(start <= offsets[new.event_id] < end for new in append.submissions)
        # Whoever reads this may forget everything before the start.
        for offset, new in self.spooled:
            if offset < start and new.partition == append.partition:
                assert self.logged[new.event_id] or new.event_id in self.duplicates

    @rule(number=st.integers(0, 1), data=st.data())
    def crash(self, number: int, data: st.DataObject) -> None:
        """A shard dies with its appends on their way, and leaves what is in the log."""
        for append in self.in_flight[number]:
            if data.draw(st.booleans()):
                self.write(append)
        self.in_flight[number] = []
        heir = successor(
            self.logs[number],
            now_ms=self.now_ms,
            policy=self.policy,
            since_ms=self.floor_ms - self.policy.longest_ms,
            number=number,
        )
        heir.epoch = max(heir.epoch, self.partitions[number].epoch + 1)
        self.partitions[number] = heir
        self.sent = [(new, result) for new, result in self.sent if new.partition != number]
        if self.call is not None and any(new.partition == number for new, _ in self.call.results):
            self.call = None

    @rule(number=st.integers(0, 1), share=st.floats(0, 1))
    def keep_up(self, number: int, share: float) -> None:
        """Forget, and trim the log behind the writer, who is somewhere in it."""
        partition = self.partitions[number]
        partition.expire(self.floor_ms)
        if not self.remembers:
            partition.window = Window(FORGETFUL)
        partition.forget_spools({SPOOL})
        for lane, entries in enumerate(self.logs[number]):
            if entries:
                stored = entries[int(share * (len(entries) - 1))][0]
                keep_from = partition.keep_from(lane, stored)
                self.logs[number][lane] = [entry for entry in entries if entry[0] >= keep_from]

    @rule(ms=st.integers(0, 300) | st.sampled_from([800, 2400, HOUR_MS]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    # -- promises --------------------------------------------------------------

    @invariant()
    def nothing_is_in_the_log_twice(self) -> None:
        assert set(self.logged.values()) <= {1}

    @invariant()
    def nothing_that_is_remembered_is_in_the_log_as_another_event(self) -> None:
        if self.remembers:
            for one, other in combinations(self.events[-30:], 2):
                assert not one_event(self.policy.window, one, other)

    def teardown(self) -> None:
        """In the end all of it is drained."""
        if not hasattr(self, "partitions"):
            return
        self.call = None
        self.land()
        while self.cursor < self.end:
            before = self.cursor
            self.feed(4, {0, 1}, None)
            self.land()
            self.hear()
            assert self.cursor > before
        for _, new in self.spooled:
            in_log = self.logged[new.event_id]
            assert in_log == 1 or (in_log == 0 and new.event_id in self.duplicates)
        self.nothing_is_in_the_log_twice()
        self.nothing_that_is_remembered_is_in_the_log_as_another_event()

    def land(self) -> None:
        """Everything that is on its way gets there."""
        for number, partition in enumerate(self.partitions):
            while appends := self.in_flight[number] or partition.take(now_ms=self.now_ms):
                for append in appends:
                    self.write(append)
                    partition.committed(append, now_ms=self.now_ms)
                self.in_flight[number] = []


SpoolMachine.TestCase.settings = settings(stateful_step_count=50)
test_a_spool_is_drained_exactly_once = SpoolMachine.TestCase


# -- one thing at a time -----------------------------------------------------


class Feeder:
    """
    Drains into partition 3.

    Args:
        partition: Its owner.
        now_ms: Unix time.
    """

    def __init__(self, partition: Partition, now_ms: int = NOW_MS) -> None:
        self.partition = partition
        self.now_ms = now_ms

    def offer(
        self, start: int, end: int, *events: Submission, shut: Outcome | None = None
    ) -> list[Outcome | Reservation]:
        """A chunk whose events stand one after the other, from its start on."""
        return [
            self.partition.offer_spooled(
                new, (SPOOL, start, end), start + place, now_ms=self.now_ms, shut=shut
            )
            for place, new in enumerate(events)
        ]

    def drain(self, start: int, end: int, *events: Submission) -> list[Outcome]:
        """The same, and all of it gets into the log."""
        results = self.offer(start, end, *events)
        commit_all(self.partition, now_ms=self.now_ms)
        return [outcome_of(result) for result in results]


def verdicts(outcomes: Iterable[Outcome | Reservation]) -> list[Verdict | int]:
    """What became of each; of a place its lane."""
    return [
        outcome.verdict if isinstance(outcome, Outcome) else outcome.append.lane
        for outcome in outcomes
    ]


def forgetful() -> Partition:
    """An owner whose window holds one event, so that nothing but the log's cursor helps."""
    return owner(replace(POLICY, window=FORGETFUL))


def spooled(n: int, *, at_ms: int | None = None, **more: int) -> Submission:
    """An event that came in some milliseconds before or after the others."""
    return submission(n, at_ms=NOW_MS - 100 + n if at_ms is None else at_ms, **more)


def test_the_entries_of_a_chunk_say_from_where_in_the_spool_it_goes() -> None:
    """They are the cursor: nothing else tells a successor what has been drained."""
    partition, log = owner(), [[], [], []]
    Feeder(partition).offer(100, 200, spooled(1), spooled(2, lane=HIGH))
    reserve(partition, submission(3))
    Feeder(partition).offer(200, 300, spooled(4))
    headers = append_all(partition, log)

    assert sorted(header.spool or ("", header.count, 0) for header in headers) == [
        ("", 1, 0),
        (SPOOL, 100, 200),
        (SPOOL, 100, 200),
        (SPOOL, 200, 300),
    ]


def test_a_chunk_that_comes_again_is_accepted_and_appended_once() -> None:
    partition = forgetful()
    events = [spooled(n, lane=n % 2) for n in range(5)]
    feeder = Feeder(partition)
    assert verdicts(feeder.drain(100, 200, *events)) == [ACCEPTED] * 5

    assert verdicts(feeder.offer(100, 200, *events)) == [ACCEPTED] * 5
    assert not partition.has_waiting


@pytest.mark.parametrize("lost", ["refused", "unclear"])
def test_of_a_chunk_that_got_there_in_part_the_rest_is_appended(lost: str) -> None:
    partition = forgetful()
    events = [spooled(n, lane=n % 2) for n in range(4)]
    feeder = Feeder(partition)
    results = feeder.offer(100, 200, *events)
    high, normal = sorted(partition.take(now_ms=NOW_MS), key=lambda append: append.lane)
    partition.committed(high, now_ms=NOW_MS)
    if lost == "refused":
        partition.refused(normal)
        expected = [ACCEPTED, Verdict.AWAY] * 2
        again: list[Verdict | int] = [ACCEPTED, NORMAL] * 2
    else:
        partition.became_unclear(normal)
        expected = [ACCEPTED, Verdict.UNAVAILABLE] * 2
        again = [ACCEPTED, Verdict.UNAVAILABLE] * 2
    assert verdicts(outcome_of(result) for result in results) == expected

    assert verdicts(feeder.offer(100, 200, *events)) == again
    if lost == "unclear":
        partition.committed(normal, now_ms=NOW_MS)
    commit_all(partition)
    assert verdicts(feeder.offer(100, 200, *events)) == [ACCEPTED] * 4
    assert partition.totals == [2, 2, 0]


def test_everything_before_the_last_chunk_is_done() -> None:
    """A feeder that begins again far back gets through without appending anything."""
    partition = forgetful()
    feeder = Feeder(partition)
    first, second = [spooled(n) for n in range(3)], [spooled(n) for n in range(3, 6)]
    feeder.drain(100, 103, *first)
    feeder.drain(103, 106, *second)

    assert verdicts(feeder.offer(100, 106, *first, *second)) == [ACCEPTED] * 6
    assert not partition.has_waiting


def test_a_chunk_that_begins_again_far_back_keeps_the_cursor_where_it_was() -> None:
    """Set back, the cursor would forget what has been drained since."""
    partition, log = forgetful(), [[], [], []]
    feeder = Feeder(partition)
    first, second, new = spooled(1), spooled(2), spooled(3)
    feeder.drain(100, 101, first)
    feeder.drain(101, 102, second)

    assert verdicts(feeder.offer(100, 103, first, second, new)) == [ACCEPTED, ACCEPTED, NORMAL]
    (header,) = append_all(partition, log)
    assert header.spool == (SPOOL, 101, 103)


def drained_in_part(partition: Partition) -> list[Submission]:
    """Of a chunk from 100 to 104 the last event is in the log, the others are not."""
    events = [spooled(n) for n in (1, 2, 3)] + [spooled(0, lane=HIGH)]
    Feeder(partition).offer(100, 104, *events)
    for append in partition.take(now_ms=NOW_MS):
        if append.lane == HIGH:
            partition.committed(append, now_ms=NOW_MS)
        else:
            partition.refused(append)
    return events


def test_chunks_may_be_cut_elsewhere_when_the_feeder_begins_again() -> None:
    """
    The new chunks begin inside the old one. What the old one brought to the log beyond
    that must not be forgotten, although the cursor has moved.
    """
    partition = forgetful()
    events = drained_in_part(partition)
    feeder = Feeder(partition)

    assert verdicts(feeder.drain(100, 102, *events[:2])) == [ACCEPTED] * 2
    assert verdicts(feeder.drain(102, 103, events[2])) == [ACCEPTED]
    assert verdicts(feeder.offer(103, 104, events[3])) == [ACCEPTED]
    assert partition.totals == [1, 3, 0]
    assert not partition.has_waiting


def test_of_an_older_chunk_that_lands_late_nothing_is_forgotten() -> None:
    """Its feeder is gone, and the next one was faster: entries of two chunks cross."""
    partition = forgetful()
    slow, fast = spooled(1), spooled(2, lane=HIGH)
    partition.offer_spooled(slow, (SPOOL, 100, 110), 105, now_ms=NOW_MS)
    (append,) = partition.take(now_ms=NOW_MS)
    partition.offer_spooled(fast, (SPOOL, 104, 120), 115, now_ms=NOW_MS)
    partition.refused(append)
    partition.offer_spooled(slow, (SPOOL, 100, 110), 105, now_ms=NOW_MS)
    appends = {append.lane: append for append in partition.take(now_ms=NOW_MS)}
    partition.committed(appends[HIGH], now_ms=NOW_MS)
    partition.committed(appends[NORMAL], now_ms=NOW_MS)
    reserve(partition, submission(9))
    commit_all(partition)

    again = partition.offer_spooled(slow, (SPOOL, 104, 120), 105, now_ms=NOW_MS)
    assert verdicts([again]) == [ACCEPTED]


def test_a_successor_goes_on_where_its_predecessor_was() -> None:
    """It reads lane by lane, so it meets the chunks in another order."""
    policy = replace(POLICY, window=FORGETFUL)
    before, log = owner(policy), [[], [], []]
    feeder = Feeder(before)
    events = [spooled(n, lane=n % 2) for n in range(6)]
    feeder.offer(100, 104, *events[:4])
    for append in before.take(now_ms=NOW_MS):
        if append.lane == NORMAL:
            assert append.id is not None
            log[NORMAL].append((append.id, append.fields))
            before.committed(append, now_ms=NOW_MS)
        else:
            before.refused(append)
    feeder.offer(100, 101, events[0])
    append_all(before, log)
    feeder.offer(101, 103, *events[1:3])
    append_all(before, log)
    after = successor(log, now_ms=NOW_MS, policy=policy)

    for partition in (before, after):
        again = Feeder(partition).offer(100, 106, *events)
        # The fourth was in the log since the first chunk; the last two never were.
        assert verdicts(again) == [*[ACCEPTED] * 4, HIGH, NORMAL]


def test_two_spools_do_not_know_of_each_other() -> None:
    partition = forgetful()
    Feeder(partition).drain(100, 101, spooled(1))

    other = partition.offer_spooled(spooled(2), ("spool-8", 0, 10), 0, now_ms=NOW_MS)
    assert verdicts([other]) == [NORMAL]


def test_a_spool_that_is_no_more_is_forgotten() -> None:
    """Else every spool that ever was would stay in memory."""
    partition = forgetful()
    event = spooled(1)
    Feeder(partition).drain(100, 101, event)
    Feeder(partition).drain(101, 102, spooled(2))

    partition.forget_spools({SPOOL, "spool-8"})
    assert verdicts(Feeder(partition).offer(100, 101, event)) == [ACCEPTED]
    partition.forget_spools({"spool-8"})
    assert verdicts(Feeder(partition).offer(100, 101, event)) == [NORMAL]


# -- as of the time when it came in --------------------------------------------


def test_a_client_that_came_again_meanwhile_makes_the_spooled_one_a_duplicate() -> None:
    """Also an hour later, as long as what was remembered then still is."""
    partition = owner()
    client = submission(1, at_ms=NOW_MS + 500, digest=9)
    reserve(partition, client, now_ms=NOW_MS + 500)
    commit_all(partition, now_ms=NOW_MS + 500)
    partition.expire(NOW_MS - MARGIN_MS)

    feeder = Feeder(partition, NOW_MS + HOUR_MS)
    (duplicate,) = feeder.offer(0, 10, submission(2, digest=9))
    assert duplicate == Outcome(DUPLICATE, (3, NORMAL, EPOCH, 2, 0), client.event_id)


def test_a_client_that_comes_an_hour_after_the_spooled_one_sends_another_event() -> None:
    partition = owner()
    Feeder(partition, NOW_MS + HOUR_MS).drain(0, 10, submission(1, digest=9))

    reserve(partition, submission(2, at_ms=NOW_MS + HOUR_MS, digest=9), now_ms=NOW_MS + HOUR_MS)


def test_a_duplicate_of_a_clients_event_on_its_way_waits_for_its_outcome() -> None:
    partition = owner()
    client = submission(1, digest=9)
    reserve(partition, client)

    (outcome,) = Feeder(partition).drain(0, 10, submission(2, digest=9))
    assert outcome == Outcome(DUPLICATE, (3, NORMAL, EPOCH, 2, 0), client.event_id)


def test_a_retry_that_was_spooled_while_the_first_was_unclear_is_a_duplicate_in_the_end() -> None:
    """
    The event itself is never spooled: it may be in the log. Its client's retry has an id
    of its own and may be, because the drain finds out which of them is there.
    """
    partition = owner()
    first, retry = submission(1, digest=9), submission(2, digest=9)
    reserve(partition, first)
    (append,) = partition.take(now_ms=NOW_MS)
    partition.became_unclear(append)
    assert partition.offer(first, now_ms=NOW_MS) == UNAVAILABLE
    assert partition.offer(retry, now_ms=NOW_MS) == AWAY

    feeder = Feeder(partition)
    assert feeder.offer(0, 10, retry) == [AWAY]
    partition.committed(append, now_ms=NOW_MS)
    assert verdicts(feeder.offer(0, 10, retry)) == [DUPLICATE]


@pytest.mark.parametrize("shut", [FULL, AWAY])
def test_while_nothing_gets_a_place_what_is_drained_is_still_recognised(shut: Outcome) -> None:
    partition = owner()
    drained, known = spooled(1), spooled(2)
    reserve(partition, known)
    Feeder(partition).drain(100, 101, drained)

    results = Feeder(partition).offer(100, 103, drained, known, spooled(3), shut=shut)
    assert verdicts(results) == [ACCEPTED, ACCEPTED, shut.verdict]
    assert not partition.has_waiting


# -- rate ----------------------------------------------------------------------


def test_spooled_events_over_the_rate_are_parked_not_refused() -> None:
    """They were acknowledged. API events and hits are alike here."""
    partition = owner()
    events = [spooled(n, flags=n % 2 * HIT, lane=n % 2) for n in range(14)]
    results = Feeder(partition).offer(0, 100, *events)

    assert [lane for lane in verdicts(results) if lane != PARKED] == [HIGH, NORMAL] * 6
    assert verdicts(results)[12:] == [PARKED, PARKED]


def test_spooled_single_events_are_held_to_the_burst_limit() -> None:
    partition = owner()
    results = Feeder(partition).offer(0, 100, *[spooled(n, flags=SINGLE) for n in range(6)])

    assert verdicts(results) == [NORMAL] * 4 + [PARKED] * 2


def test_a_spooled_event_is_charged_to_the_time_when_it_came_in() -> None:
    """What came in over an hour is under the rate, though it is drained in one moment."""
    partition = owner()
    feeder = Feeder(partition, NOW_MS + HOUR_MS)
    spread = [spooled(n, at_ms=NOW_MS + 1000 * n) for n in range(60)]
    assert verdicts(feeder.offer(0, 100, *spread)) == [NORMAL] * 60


def test_what_waited_for_longer_than_the_window_costs_nothing_today() -> None:
    partition = owner()
    feeder = Feeder(partition, NOW_MS + HOUR_MS)
    feeder.offer(0, 100, *[spooled(n) for n in range(14)])

    now_ms = NOW_MS + HOUR_MS
    for n in range(12):
        reserve(partition, submission(50 + n, at_ms=now_ms), now_ms=now_ms)


def test_what_came_in_within_the_window_counts_beside_what_comes_now() -> None:
    partition = owner()
    Feeder(partition, NOW_MS).offer(0, 100, *[spooled(n, at_ms=NOW_MS - 10) for n in range(10)])

    results = [partition.offer(submission(50 + n), now_ms=NOW_MS) for n in range(3)]
    assert verdicts(results) == [NORMAL, NORMAL, Verdict.LIMITED]


@pytest.mark.parametrize("waited_ms", [0, HOUR_MS])
@pytest.mark.parametrize("flags", [0, SINGLE])
def test_what_the_log_refused_of_a_spool_is_paid_back(waited_ms: int, flags: int) -> None:
    """Else it would be parked at last, for having been tried a few times."""
    partition = owner()
    feeder = Feeder(partition, NOW_MS + waited_ms)
    events = [spooled(n, at_ms=NOW_MS, flags=flags) for n in range(4)]
    for _ in range(5):
        assert verdicts(feeder.offer(0, 100, *events)) == [NORMAL] * 4
        partition.refuse_waiting()


def test_a_spooled_event_that_was_to_be_parked_and_was_refused_pays_nothing_back() -> None:
    """It was never charged."""
    partition = owner()
    feeder = Feeder(partition)
    events = [spooled(n, at_ms=NOW_MS) for n in range(14)]
    feeder.drain(0, 12, *events[:12])
    for _ in range(3):
        assert verdicts(feeder.offer(12, 14, *events[12:])) == [PARKED, PARKED]
        partition.refuse_waiting()


def test_the_charges_of_a_spool_that_is_no_more_are_forgotten() -> None:
    partition = owner()
    feeder = Feeder(partition, NOW_MS + HOUR_MS)
    feeder.drain(0, 100, *[spooled(n, at_ms=NOW_MS) for n in range(12)])
    assert verdicts(feeder.offer(100, 200, spooled(20, at_ms=NOW_MS))) == [PARKED]
    partition.refuse_waiting()

    partition.forget_spools(set())
    assert verdicts(feeder.offer(0, 100, spooled(20, at_ms=NOW_MS))) == [NORMAL]


def test_each_spool_is_held_to_the_rate_however_far_the_others_are() -> None:
    """They are drained side by side, and have come to different times."""
    partition, now_ms = owner(), NOW_MS + HOUR_MS
    lanes = []
    for n in range(14):
        behind, ahead = spooled(n, at_ms=NOW_MS), spooled(100 + n, at_ms=NOW_MS + 60_000 * n)
        lanes += verdicts([partition.offer_spooled(behind, ("a", 0, 100), n, now_ms=now_ms)])
        partition.offer_spooled(ahead, ("b", 0, 100), n, now_ms=now_ms)
    assert lanes == [NORMAL] * 12 + [PARKED] * 2
