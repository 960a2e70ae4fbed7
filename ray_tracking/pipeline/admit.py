"""
Admission to one partition: dedup, then rate, then a place in the next append.

An identity is *reserved* when its event gets a place and *committed* when the log has
it. Between the two the event can still be lost, so only a definite refusal by the log
releases the reservation: an identity that were remembered at once would turn an honest
retry into a "duplicate" of an event that nobody has. While an append is unclear, the
partition keeps reservation, id and bytes, repeats exactly those, and takes nothing new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import Entry, EntryId, encode_batch, remembered
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.rate import RateLimits, RatePolicy
from ray_tracking.pipeline.route import HIT, SINGLE, Submission, received_ms
from ray_tracking.pipeline.window import Window, WindowPolicy, same_event

#: What a refused append means: the log took nothing, and may again in a moment.
RETRY_AFTER_S = 1.0
_PARKED = LANES.index(Lane.PARKED)


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


class State(Enum):
    """Where an append stands."""

    OPEN = "open"  # takes events
    SENT = "sent"  # on its way to the log
    UNCLEAR = "unclear"  # the log may have it or not
    DONE = "done"
    REFUSED = "refused"


class Append:
    """Events of one lane that go into the log together, as one entry."""

    __slots__ = (
        "fields", "id", "lane", "offered_ms", "partition", "size_bytes", "state", "submissions",
    )  # fmt: skip

    def __init__(self, partition: int, lane: int) -> None:
        self.partition = partition
        self.lane = lane
        self.state = State.OPEN
        self.submissions: list[Submission] = []
        #: When each was charged to its campaign's rate.
        self.offered_ms: list[int] = []
        self.size_bytes = 0
        self.id: EntryId | None = None
        self.fields: dict[bytes, bytes] = {}


@dataclass(slots=True)
class Reservation:
    """A place in an append. A duplicate of the event waits on the same place."""

    append: Append
    index: int
    is_repeat: bool = False

    def outcome(self) -> Outcome:
        """What became of it, once the append is not open any more."""
        append = self.append
        if append.state is not State.DONE or append.id is None:
            return Outcome(Verdict.UNAVAILABLE, retry_after_s=RETRY_AFTER_S)
        position = (append.partition, append.lane, *append.id, self.index)
        if self.is_repeat:
            return Outcome(Verdict.DUPLICATE, position, append.submissions[self.index].event_id)
        return Outcome(Verdict.ACCEPTED, position)


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
        self._reserved: dict[bytes, list[tuple[Append, int]]] = {}
        #: The entries that the windows may still need, ``(id, appended_ms)``, for each lane.
        self._recent: list[deque[tuple[EntryId, int]]] = [deque() for _ in LANES]

    @property
    def unclear(self) -> bool:
        """Is there an append of which nobody knows whether the log has it?"""
        return any(append.state is State.UNCLEAR for append in self._in_flight)

    @property
    def buffered_events(self) -> int:
        """Events that have a place and are not in the log."""
        waiting = (*self._open.values(), *self._full, *self._in_flight)
        return sum(len(append.submissions) for append in waiting)

    def restore(self, entry: Entry, lane: int, *, now_ms: int) -> None:
        """Remember a batch that an earlier owner appended. Oldest first."""
        self._recent[lane].append((entry.id, entry.header.appended_ms))
        for index, submission in enumerate(remembered(entry.header, self.number, lane)):
            self.window.remember(submission, (self.number, lane, *entry.id, index))
            if lane != _PARKED:
                at_ms = received_ms(submission.event_id)
                self.rates.restore(submission.key, at_ms=at_ms, now_ms=now_ms)

    def last_id(self, lane: int) -> EntryId:
        """The last entry of ours that the log is known to have."""
        return EntryId(self.epoch, self.next_seq[lane] - 1)

    def offer(self, submission: Submission, *, now_ms: int) -> Outcome | Reservation:
        """
        Decide on one event, and reserve its identity if it gets a place.

        A duplicate costs its campaign nothing: the window is asked before the rate.

        Args:
            submission: The event.
            now_ms: Unix time by a clock that never goes back.
        """
        if seen := self.window.find(submission):
            if seen.event_id == submission.event_id:
                # The same event again, repeated inside the system: not a duplicate.
                return Outcome(Verdict.ACCEPTED, seen.position)
            return Outcome(Verdict.DUPLICATE, seen.position, seen.event_id)
        if self.unclear:
            return Outcome(Verdict.UNAVAILABLE, retry_after_s=RETRY_AFTER_S)
        for append, index in self._reserved.get(submission.digest, ()):
            first = append.submissions[index]
            if same_event(self.policy.window, submission, first.event_id, first.occurred_us):
                return Reservation(append, index, first.event_id != submission.event_id)
        lane = submission.lane
        wait_s = self.rates.charge(
            submission.key, single=bool(submission.flags & SINGLE), now_ms=now_ms
        )
        if wait_s:
            if not submission.flags & HIT:
                return Outcome(Verdict.LIMITED, retry_after_s=wait_s)
            lane = _PARKED
        return self._place(submission, lane, now_ms)

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
        append.state = State.DONE
        append.fields = {}
        self.next_seq[append.lane] += 1
        self.totals[append.lane] += len(append.submissions)
        for index, submission in enumerate(append.submissions):
            position = (self.number, append.lane, *append.id, index)
            self.window.remember(submission, position)
        self._settle(append)

    def refused(self, append: Append) -> None:
        """The log definitely does not have it: the events may be sent again."""
        append.state = State.REFUSED
        if append.lane != _PARKED:
            for submission, at_ms in zip(append.submissions, append.offered_ms, strict=True):
                single = bool(submission.flags & SINGLE)
                self.rates.refund(submission.key, single=single, at_ms=at_ms)
        self._settle(append)

    def became_unclear(self, append: Append) -> None:
        """Nobody knows: keep everything, and refuse what has a place but was not sent."""
        append.state = State.UNCLEAR
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

    def _place(self, submission: Submission, lane: int, now_ms: int) -> Reservation:
        append = self._open.get(lane)
        if append is not None and (
            len(append.submissions) >= self.policy.max_entry_events
            or append.size_bytes + submission.size_bytes > self.policy.max_entry_bytes
        ):
            self._full.append(append)
            append = None
        if append is None:
            append = self._open[lane] = Append(self.number, lane)
        index = len(append.submissions)
        append.submissions.append(submission)
        append.offered_ms.append(now_ms)
        append.size_bytes += submission.size_bytes
        self._reserved.setdefault(submission.digest, []).append((append, index))
        return Reservation(append, index)

    def _settle(self, append: Append) -> None:
        """The append is over, one way or the other: its reservations end."""
        if append in self._in_flight:
            self._in_flight.remove(append)
        for submission in append.submissions:
            places = self._reserved.get(submission.digest, [])
            places = [place for place in places if place[0] is not append]
            if places:
                self._reserved[submission.digest] = places
            else:
                self._reserved.pop(submission.digest, None)
