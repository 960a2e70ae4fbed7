"""
Admission to one partition: dedup, then rate, then a place in the next append.

An identity is *reserved* when its event gets a place and *committed* when the log has
it. Between the two the event can still be lost, so only a definite refusal by the log
releases the reservation: an identity that were remembered at once would turn an honest
retry into a "duplicate" of an event that nobody has. While an append is unclear, the
partition keeps reservation, id and bytes, repeats exactly those, and takes nothing new.

Events out of a spool were acknowledged already: they cannot be refused, only recognised.
They are judged as of the time when they came in. The log is their drain's cursor: an entry
of theirs says from where in the spool its chunk goes, and that everything before is done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import Entry, EntryId, SpoolChunk, encode_batch, remembered
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import (
    ACCEPTED,
    AWAY,
    UNAVAILABLE,
    Append,
    Charge,
    Offered,
    Reservation,
    Run,
    State,
)
from ray_tracking.pipeline.rate import RateLimits, RatePolicy
from ray_tracking.pipeline.route import HIT, REDRIVE, SINGLE, Submission, received_ms
from ray_tracking.pipeline.window import Window, WindowPolicy, same_event

_PARKED = LANES.index(Lane.PARKED)
#: Fewer events are sooner asked one by one than together.
_FEW = 8


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """The rules that a partition's events are held to."""

    window: WindowPolicy = field(default_factory=WindowPolicy)
    rate: RatePolicy = field(default_factory=RatePolicy)
    max_entry_events: int = 1000
    max_entry_bytes: int = 1024 * 1024
    compress: bool = False

    @property
    def longest_ms(self) -> int:
        """How far back a successor must be able to read."""
        return max(self.window.longest_ms, self.rate.window_ms)


@dataclass(slots=True)
class Drained:
    """How far a spool has been drained into a partition: all of it before ``start``, and these."""

    start: int = 0
    #: Of each event its chunk's end: chunks overlap when a feeder begins again.
    ends: dict[bytes, int] = field(default_factory=dict)

    def note(self, start: int, end: int, event_ids: Iterable[bytes]) -> None:
        """An entry with events of a chunk is in the log; in any order of chunks."""
        if start > self.start:
            self.start = start
            self.ends = {event_id: to for event_id, to in self.ends.items() if to > start}
        if end > self.start:
            self.ends.update(dict.fromkeys(event_ids, end))


class Partition:
    """
    One partition in the hands of its owner.

    Args:
        number: Which partition.
        policy: The rules.
        epoch: The owner's epoch; its next entry in each lane has ``seq`` 2.
        totals: Events ever appended to each lane.
    """

    def __init__(
        self, number: int, policy: AdmissionPolicy, *, epoch: int, totals: Iterable[int]
    ) -> None:
        self.number = number
        self.epoch = epoch
        self.policy = policy
        self.window = Window(policy.window)
        self.rates = RateLimits(policy.rate)
        self.totals = list(totals)
        self.next_seq = [2 for _ in LANES]
        self._open: dict[int, Append] = {}
        self._full: list[Append] = []
        self._in_flight: list[Append] = []
        #: How many of those in flight are unclear.
        self._unclear = 0
        #: Of events that waited in a spool for longer than the window; each spool has come to
        #: another time.
        self._late_rates: dict[str, RateLimits] = {}
        self._drained: dict[str, Drained] = {}
        #: The entries that the windows may still need, ``(id, appended_ms)``, for each lane.
        self._recent: list[deque[tuple[EntryId, int]]] = [deque() for _ in LANES]

    def change(self, policy: AdmissionPolicy) -> None:
        """Go by other rules from now on; what was admitted stays admitted."""
        self.policy = policy
        self.window.change(policy.window)
        self.rates.change(policy.rate)
        for rates in self._late_rates.values():
            rates.change(policy.rate)

    @property
    def unclear(self) -> bool:
        """Is there an append of which nobody knows whether the log has it?"""
        return self._unclear > 0

    @property
    def has_waiting(self) -> bool:
        """Is there something that was not sent yet?"""
        return bool(self._open or self._full)

    def restore(self, entry: Entry, lane: int, *, now_ms: int) -> None:
        """Remember a batch that an earlier owner appended. Oldest first."""
        self._recent[lane].append((entry.id, entry.header.appended_ms))
        submissions = list(remembered(entry.header, self.number, lane))
        self.window.remember(submissions, (self.number, lane, *entry.id))
        for submission in submissions:
            if lane != _PARKED and not submission.flags & REDRIVE:
                at_ms = received_ms(submission.event_id)
                self.rates.restore(submission.key, at_ms=at_ms, now_ms=now_ms)
        self._note_drained(entry.header.spool, submissions)

    def last_id(self, lane: int) -> EntryId:
        """The last entry of ours that the log is known to have."""
        return EntryId(self.epoch, self.next_seq[lane] - 1)

    def offer(
        self, submission: Submission, *, now_ms: int, shut: Outcome | None = None
    ) -> Outcome | Reservation:
        """
        Decide on one event, and reserve its identity if it gets a place.

        A duplicate costs its campaign nothing: the window is asked before the rate. A
        dead letter sent again is past both.

        Args:
            submission: The event.
            now_ms: Unix time by a clock that never goes back.
            shut: If nothing gets a place now, what is said instead.
        """
        shut = shut or (AWAY if self._unclear else None)
        redrive = submission.flags & REDRIVE
        if not redrive and (known := self._recognise(submission, shut)):
            return known
        if shut:
            return shut
        if redrive:
            return self._place(submission, submission.lane, None)
        single = bool(submission.flags & SINGLE)
        wait_s = self.rates.charge(submission.key, single=single, now_ms=now_ms)
        if not wait_s:
            return self._place(submission, submission.lane, (self.rates, now_ms))
        if submission.flags & HIT:
            return self._place(submission, _PARKED, None)
        return Outcome(Verdict.LIMITED, retry_after_s=wait_s)

    def offer_all(
        self, submissions: Sequence[Submission], *, now_ms: int, shut: Outcome | None = None
    ) -> Offered:
        """
        Decide on several events of one lane, as :meth:`offer` does on each.

        Together where that is sooner; then nobody is told where an event of a batch stands.
        """
        runs = None
        if len(submissions) >= _FEW and not shut:
            runs = self.offer_together(submissions, now_ms=now_ms)
        if runs is not None:
            return runs
        return [self.offer(one, now_ms=now_ms, shut=shut) for one in submissions]

    def offer_together(self, submissions: Sequence[Submission], *, now_ms: int) -> list[Run] | None:
        """
        Give a place to each of several events of one lane, if nothing stands against any.

        Returns:
            Their places, in order; None if they must be offered one by one, because one may
            be known, or over its campaign's rate. Then nothing has changed.
        """
        digests = {s.digest for s in submissions}
        kinds = {s.flags & (REDRIVE | SINGLE) for s in submissions}
        if (
            self._unclear
            or len(digests) < len(submissions)
            or len(kinds) > 1
            or REDRIVE in kinds
            or not self.window.has_none_of(digests)
            or not all(append.slots.has_none_of(digests) for append in self._pending())
        ):
            return None
        events = Counter([s.key for s in submissions])
        if not self.rates.charge_all(events, single=SINGLE in kinds, now_ms=now_ms):
            return None
        return self._place_all(submissions, submissions[0].lane, (self.rates, now_ms))

    def offer_spooled(
        self,
        submission: Submission,
        chunk: SpoolChunk,
        offset: int,
        *,
        now_ms: int,
        shut: Outcome | None = None,
    ) -> Outcome | Reservation:
        """
        Decide on one event out of a spool, as of the time when it came in.

        Over its campaign's rate it is parked, not refused: it was acknowledged.

        Args:
            submission: The event.
            chunk: What is being drained. Everything before it is done.
            offset: Where in the spool the event stands.
            now_ms: Unix time by a clock that never goes back.
            shut: If nothing gets a place now, what is said instead.
        """
        shut = shut or (AWAY if self.unclear else None)
        spool_id, start, end = chunk
        if drained := self._drained.get(spool_id):
            start = max(start, drained.start)
            if offset < start or submission.event_id in drained.ends:
                return ACCEPTED
        if known := self._recognise(submission, shut):
            return known
        if shut:
            return shut
        at_ms = min(received_ms(submission.event_id), now_ms)
        rates = self.rates
        if at_ms < now_ms - self.policy.rate.window_ms:
            rates = self._late_rates.setdefault(spool_id, RateLimits(self.policy.rate))
        single = bool(submission.flags & SINGLE)
        stretch = (spool_id, start, end)
        if rates.charge(submission.key, single=single, now_ms=at_ms):
            return self._place(submission, _PARKED, None, stretch)
        return self._place(submission, submission.lane, (rates, at_ms), stretch)

    def forget_spools(self, present: Container[str]) -> None:
        """Spools that are no more will not be drained again."""
        for spool_id in [spool_id for spool_id in self._drained if spool_id not in present]:
            del self._drained[spool_id]
            self._late_rates.pop(spool_id, None)

    def take(self, *, now_ms: int) -> list[Append]:
        """
        The appends that may go to the log now: one a lane, none while any is on its way.

        Their ids and bytes are fixed from here on.
        """
        if self._in_flight:
            return []
        ready: dict[int, Append] = {}
        for append in [*self._full, *self._open.values()]:
            ready.setdefault(append.lane, append)
        for lane, append in ready.items():
            if self._open.get(lane) is append:
                del self._open[lane]
            else:
                self._full.remove(append)
            append.state = State.SENT
            append.id = EntryId(self.epoch, self.next_seq[lane])
            append.fields = encode_batch(
                append.submissions,
                total=self.totals[lane] + len(append.submissions),
                appended_ms=now_ms,
                compress=self.policy.compress,
                spool=append.spool,
            )
        self._in_flight = list(ready.values())
        return list(self._in_flight)

    def repeats(self) -> list[Append]:
        """The unclear appends, to be sent again as they are."""
        return [append for append in self._in_flight if append.state is State.UNCLEAR]

    def committed(self, append: Append, *, now_ms: int) -> None:
        """The log has it."""
        assert append.id is not None
        self._recent[append.lane].append((append.id, now_ms))
        self._unclear -= append.state is State.UNCLEAR
        append.state = State.DONE
        append.fields = {}
        self.next_seq[append.lane] += 1
        self.totals[append.lane] += len(append.submissions)
        self.window.remember(append.submissions, (self.number, append.lane, *append.id))
        self._note_drained(append.spool, append.submissions)
        self._settle(append)

    def refused(self, append: Append) -> None:
        """The log definitely does not have it: the events may be sent again."""
        self._unclear -= append.state is State.UNCLEAR
        append.state = State.REFUSED
        for submission, charge in zip(append.submissions, append.charges, strict=True):
            if charge is not None:
                rates, at_ms = charge
                single = bool(submission.flags & SINGLE)
                rates.refund(submission.key, single=single, at_ms=at_ms)
        self._settle(append)

    def became_unclear(self, append: Append) -> None:
        """Nobody knows: keep everything, and refuse what has a place but was not sent."""
        append.state = State.UNCLEAR
        self._unclear += 1
        self.refuse_waiting()

    def refuse_waiting(self) -> None:
        """Nothing that has a place and was not sent will be."""
        for waiting in [*self._full, *self._open.values()]:
            self.refused(waiting)
        self._full.clear()
        self._open.clear()

    def expire(self, now_ms: int) -> None:
        """Forget what lies before the windows."""
        self.window.expire(now_ms)
        self.rates.expire(now_ms)
        for recent in self._recent:
            while recent and recent[0][1] < now_ms - self.policy.longest_ms:
                recent.popleft()

    def keep_from(self, lane: int, stored: EntryId) -> EntryId:
        """
        The first entry of a lane that must stay in the log.

        Args:
            lane: Which stream.
            stored: Up to where it has become rows, as committed in Postgres.
        """
        needed = self._recent[lane][0][0] if self._recent[lane] else self.last_id(lane)
        return min(stored, needed, self.last_id(lane))

    def _recognise(
        self, submission: Submission, shut: Outcome | None
    ) -> Outcome | Reservation | None:
        """Is it in the log, or on its way there?"""
        if seen := self.window.find(submission):
            if seen.event_id == submission.event_id:
                # The same event again, repeated inside the system: not a duplicate.
                return Outcome(Verdict.ACCEPTED, seen.position)
            return Outcome(Verdict.DUPLICATE, seen.position, seen.event_id)
        for append in self._pending():
            for index in append.slots.of(submission.digest):
                first = append.submissions[index]
                if first.event_id == submission.event_id:
                    unclear = append.state is State.UNCLEAR
                    return UNAVAILABLE if unclear else Reservation(append, index)
                same = same_event(self.policy.window, submission, first.event_id, first.occurred_us)
                if same and not shut:
                    return Reservation(append, index, is_repeat=True)
        return None

    def _pending(self) -> list[Append]:
        """What is on its way to the log, or waits to be sent."""
        return [*self._in_flight, *self._full, *self._open.values()]

    def _note_drained(self, chunk: SpoolChunk | None, submissions: Iterable[Submission]) -> None:
        if chunk is not None:
            spool_id, start, end = chunk
            drained = self._drained.setdefault(spool_id, Drained())
            drained.note(start, end, (submission.event_id for submission in submissions))

    def _place(
        self,
        submission: Submission,
        lane: int,
        charge: Charge | None,
        spool: SpoolChunk | None = None,
    ) -> Reservation:
        append = self._append_for(lane, spool, submission.size_bytes)
        return Reservation(append, append.add(submission, charge))

    def _place_all(self, submissions: Sequence[Submission], lane: int, charge: Charge) -> list[Run]:
        runs = []
        while submissions:
            append = self._append_for(lane, None, submissions[0].size_bytes)
            start = len(append.submissions)
            part = submissions[: self.policy.max_entry_events - start]
            room_bytes = self.policy.max_entry_bytes - append.size_bytes
            sizes = list(accumulate([s.size_bytes for s in part]))
            if sizes[-1] > room_bytes:
                part = part[: max(1, bisect_right(sizes, room_bytes))]
            append.add_all(part, charge)
            runs.append(Run(append, start, start + len(part)))
            submissions = submissions[len(part) :]
        return runs

    def _append_for(self, lane: int, spool: SpoolChunk | None, size_bytes: int) -> Append:
        """The append that takes the next event of so many bytes."""
        append = self._open.get(lane)
        if append is not None:
            if (
                append.spool == spool
                and len(append.submissions) < self.policy.max_entry_events
                and append.size_bytes + size_bytes <= self.policy.max_entry_bytes
            ):
                return append
            self._full.append(append)
        append = self._open[lane] = Append(self.number, lane, spool)
        return append

    def _settle(self, append: Append) -> None:
        """The append is over, one way or the other."""
        if append in self._in_flight:
            self._in_flight.remove(append)
