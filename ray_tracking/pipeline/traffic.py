"""What a replica has answered, and how long that took."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from ray_tracking.pipeline.gather import Outcome, Verdict

_OVER_MS = 60_000
_SLOT_MS = 5000
_OVERLOADED = (Verdict.FULL, Verdict.AWAY, Verdict.UNAVAILABLE)


class Traffic:
    """Counts since the replica began; times of the last minute."""

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0
        self.duplicates = 0
        self.limited = 0
        self.overloaded = 0
        self.invalid = 0
        #: ``[start, requests, milliseconds]``, oldest first.
        self._slots: deque[list[float]] = deque()

    def note(
        self, outcomes: Iterable[Outcome], elapsed_ms: float, now_ms: int, *, invalid: int = 0
    ) -> None:
        """A request was answered."""
        verdicts = Counter(outcome.verdict for outcome in outcomes)
        self.requests += 1
        self.events += verdicts.total()
        self.duplicates += verdicts[Verdict.DUPLICATE]
        self.limited += verdicts[Verdict.LIMITED]
        self.overloaded += sum(verdicts[verdict] for verdict in _OVERLOADED)
        self.invalid += invalid
        if not self._slots or now_ms - self._slots[-1][0] >= _SLOT_MS:
            self._slots.append([now_ms, 0, 0.0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += elapsed_ms

    def last_minute(self, now_ms: int) -> tuple[int, float]:
        """Requests, and the milliseconds that they took together."""
        while self._slots and now_ms - self._slots[0][0] > _OVER_MS:
            self._slots.popleft()
        return sum(int(slot[1]) for slot in self._slots), sum(slot[2] for slot in self._slots)
