"""What a replica has answered, and how long that took."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable

from ray_tracking.pipeline.gather import Outcome, Verdict

_OVER_MS = 60_000
_SLOT_MS = 5000
_OVERLOADED = (Verdict.FULL, Verdict.AWAY, Verdict.UNAVAILABLE)
#: Up to how many milliseconds each bucket of answers reaches; the last has no end.
BUCKETS_MS = (2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)


class Traffic:
    """Counts since the replica began; times of the last minute."""

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0
        self.acknowledged = 0
        self.duplicates = 0
        self.limited = 0
        self.overloaded = 0
        self.invalid = 0
        #: Answers by how long they took, and how long all took together.
        self.answers = [0] * (len(BUCKETS_MS) + 1)
        self.answer_ms = 0.0
        #: ``[start, requests, milliseconds]``, oldest first.
        self._slots: deque[list[float]] = deque()

    def note(
        self, outcomes: Iterable[Outcome], elapsed_ms: float, now_ms: int, *, invalid: int = 0
    ) -> None:
        """A request was answered."""
        for verdict, count in Counter(outcome.verdict for outcome in outcomes).items():
            self._count(verdict, count)
        self.invalid += invalid
        self._time(elapsed_ms, now_ms)

    def note_one(self, verdict: Verdict, elapsed_ms: float, now_ms: int) -> None:
        """A request with one event was answered."""
        self._count(verdict, 1)
        self._time(elapsed_ms, now_ms)

    def last_minute(self, now_ms: int) -> tuple[int, float]:
        """Requests, and the milliseconds that they took together."""
        while self._slots and now_ms - self._slots[0][0] > _OVER_MS:
            self._slots.popleft()
        return sum(int(slot[1]) for slot in self._slots), sum(slot[2] for slot in self._slots)

    def _count(self, verdict: Verdict, count: int) -> None:
        self.events += count
        if verdict in (Verdict.ACCEPTED, Verdict.SPOOLED):
            self.acknowledged += count
        elif verdict is Verdict.DUPLICATE:
            self.duplicates += count
        elif verdict is Verdict.LIMITED:
            self.limited += count
        elif verdict in _OVERLOADED:
            self.overloaded += count

    def _time(self, elapsed_ms: float, now_ms: int) -> None:
        self.requests += 1
        self.answers[bisect_left(BUCKETS_MS, elapsed_ms)] += 1
        self.answer_ms += elapsed_ms
        if not self._slots or now_ms - self._slots[-1][0] >= _SLOT_MS:
            self._slots.append([now_ms, 0, 0.0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += elapsed_ms
