"""
The dedup window of one partition: which identities it has seen, and as what.

Exact: nothing here is probabilistic, so a false "duplicate" cannot happen. Identities
stand in buckets by their time of receipt, so that forgetting is dropping a bucket;
whether two events are near enough to be one is judged by their own times, not by the
bucket's edge.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ray_tracking.pipeline.route import IDENTITY_SHIFT, Identity, Submission, received_ms

#: A finer grain forgets more smoothly and costs more look-ups for each event.
BUCKETS_PER_WINDOW = 8
#: A bucket that has its share of all that may be held is full, and another begins. The least share:
_LEAST_SHARE = 1000

#: Of an entry: partition, lane, epoch, seq.
Place = tuple[int, int, int, int]
#: Of an event: its entry's place, and where it stands there.
Position = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    """How long identities are held, and how many at the most."""

    dedup_window_ms: int = 60_000
    idempotency_window_ms: int = 60_000
    max_ids: int = 100_000

    @property
    def longest_ms(self) -> int:
        return max(self.dedup_window_ms, self.idempotency_window_ms)


@dataclass(frozen=True, slots=True)
class Seen:
    """The first event of an identity: its id and where it is in the log."""

    event_id: bytes
    position: Position


def same_event(policy: WindowPolicy, new: Submission, old_id: bytes, old_occurred_us: int) -> bool:
    """Are these one event, given that their identities' hashes agree?"""
    identity = Identity(new.flags >> IDENTITY_SHIFT & 0b11)
    given = identity is Identity.GIVEN
    window_ms = policy.idempotency_window_ms if given else policy.dedup_window_ms
    if abs(received_ms(new.event_id) - received_ms(old_id)) >= window_ms:
        return False
    if identity is not Identity.TIMED:
        return True
    return abs(new.occurred_us - old_occurred_us) < policy.dedup_window_ms * 1000


class Slots:
    """Which events in a row have a hash: slots counted from 0."""

    __slots__ = ("first", "older")

    def __init__(self) -> None:
        #: The newest slot of each hash.
        self.first: dict[bytes, int] = {}
        #: The next older slot with the same hash; few have one.
        self.older: dict[int, int] = {}

    def add(self, digests: Sequence[bytes], start: int) -> None:
        """More events, from slot ``start`` on."""
        slots = range(start, start + len(digests))
        new = dict(zip(digests, slots, strict=True))
        if len(new) == len(digests) and self.first.keys().isdisjoint(new):
            self.first |= new
            return
        for digest, slot in zip(digests, slots, strict=True):
            self.add_one(digest, slot)

    def add_one(self, digest: bytes, slot: int) -> None:
        known = self.first.get(digest)
        if known is not None:
            self.older[slot] = known
        self.first[digest] = slot

    def of(self, digest: bytes) -> list[int]:
        """The slots that have a hash, newest first."""
        slots = []
        slot = self.first.get(digest)
        while slot is not None:
            slots.append(slot)
            slot = self.older.get(slot)
        return slots

    def has_none_of(self, digests: Iterable[bytes]) -> bool:
        return self.first.keys().isdisjoint(digests)


class _Bucket:
    """Columns instead of objects: about 200 bytes an identity, most of them the dict's."""

    __slots__ = ("end_ms", "entries", "entry", "event_ids", "index", "occurred_us", "slots")

    def __init__(self) -> None:
        #: Everything in it was received before.
        self.end_ms = 0
        self.slots = Slots()
        self.event_ids = bytearray()
        self.occurred_us = array("q")
        self.entries: list[tuple[int, int, int, int]] = []
        self.entry = array("I")
        self.index = array("I")

    def add(self, submissions: Sequence[Submission], entry: Place, indices: Sequence[int]) -> None:
        self.slots.add([s.digest for s in submissions], len(self.occurred_us))
        self.event_ids += b"".join([s.event_id for s in submissions])
        self.occurred_us.extend([s.occurred_us for s in submissions])
        if not self.entries or self.entries[-1] != entry:
            self.entries.append(entry)
        self.entry.extend([len(self.entries) - 1] * len(submissions))
        self.index.extend(indices)

    def find(self, policy: WindowPolicy, s: Submission) -> Seen | None:
        for slot in self.slots.of(s.digest):
            old_id = bytes(self.event_ids[16 * slot : 16 * slot + 16])
            if same_event(policy, s, old_id, self.occurred_us[slot]):
                return Seen(old_id, (*self.entries[self.entry[slot]], self.index[slot]))
        return None


class Window:
    """
    The identities that one partition remembers.

    Args:
        policy: How long, and how many.
    """

    def __init__(self, policy: WindowPolicy) -> None:
        self._policy = policy
        self._bucket_ms = max(1, policy.longest_ms // BUCKETS_PER_WINDOW)
        self._buckets: list[_Bucket] = []
        #: Those that are not full, by the Unix time in milliseconds at which each begins.
        self._open: dict[int, _Bucket] = {}
        self._size = 0
        #: Identities forgotten before their time because there were too many.
        self.evicted_early = 0
        #: What was received before this Unix time may be forgotten.
        self._known_since_ms = 0

    def __len__(self) -> int:
        return self._size

    def change(self, policy: WindowPolicy) -> None:
        """
        Go by another window from now on.

        A longer one reaches back to what was still remembered, and grows from there.
        """
        self._policy = policy
        self._bucket_ms = max(1, policy.longest_ms // BUCKETS_PER_WINDOW)

    def find(self, submission: Submission) -> Seen | None:
        """The event that this one repeats, if there is one in the window."""
        for bucket in self._buckets:
            if submission.digest in bucket.slots.first and (
                seen := bucket.find(self._policy, submission)
            ):
                return seen
        return None

    def has_none_of(self, digests: Collection[bytes]) -> bool:
        """Whether nothing that is held has any of these hashes."""
        return all(bucket.slots.has_none_of(digests) for bucket in self._buckets)

    def remember(self, submissions: Sequence[Submission], entry: Place) -> None:
        """Hold the events of an entry that is in the log."""
        if not submissions:
            return
        ids = [s.event_id for s in submissions]
        first, last = self._start_ms(min(ids)), self._start_ms(max(ids))
        if first == last:
            self._add(first, submissions, entry, range(len(submissions)))
        else:
            for index, submission in enumerate(submissions):
                self._add(self._start_ms(ids[index]), [submission], entry, [index])
        self._size += len(submissions)
        while self._size > self._policy.max_ids and len(self._buckets) > 1:
            oldest = min(self._buckets, key=lambda bucket: bucket.end_ms)
            self.evicted_early += len(oldest.occurred_us)
            self._known_since_ms = max(self._known_since_ms, oldest.end_ms)
            self._drop([oldest])

    def expire(self, now_ms: int) -> None:
        """Forget the buckets that lie wholly before the window."""
        # One bucket more than the window: an event may have been on its way for a while.
        horizon_ms = now_ms - self._policy.longest_ms - self._bucket_ms
        self._known_since_ms = max(self._known_since_ms, horizon_ms)
        self._drop([bucket for bucket in self._buckets if bucket.end_ms <= horizon_ms])

    def effective_ms(self, now_ms: int) -> int:
        """
        How far back the window really reaches: less than asked for after an eviction, and for a
        while when it was shorter before.
        """
        return max(0, min(self._policy.longest_ms, now_ms - self._known_since_ms))

    def _start_ms(self, event_id: bytes) -> int:
        at_ms = received_ms(event_id)
        return at_ms - at_ms % self._bucket_ms

    def _add(
        self, start_ms: int, submissions: Sequence[Submission], entry: Place, indices: Sequence[int]
    ) -> None:
        bucket = self._open.get(start_ms)
        if bucket is None:
            bucket = self._open[start_ms] = _Bucket()
            self._buckets.append(bucket)
        bucket.add(submissions, entry, indices)
        last_ms = received_ms(max(submission.event_id for submission in submissions))
        bucket.end_ms = max(bucket.end_ms, last_ms + 1)
        if len(bucket.occurred_us) >= max(_LEAST_SHARE, self._policy.max_ids // BUCKETS_PER_WINDOW):
            del self._open[start_ms]

    def _drop(self, buckets: Collection[_Bucket]) -> None:
        if not buckets:
            return
        self._buckets = [bucket for bucket in self._buckets if bucket not in buckets]
        self._open = {at: bucket for at, bucket in self._open.items() if bucket not in buckets}
        self._size -= sum(len(bucket.occurred_us) for bucket in buckets)
