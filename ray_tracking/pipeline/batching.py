"""How many events go into a flush, and how long it waits for them: by what the last ones took."""

from __future__ import annotations

#: A flush that takes longer keeps everybody behind it waiting, and its locks held.
TARGET_MS = 200.0
_LEAST_EVENTS = 100
_GROWTH = 1.25
#: From one flush to the next, in units of what the last one took: while Postgres is busy, fewer
#: and larger ones cost it less for each event.
_REST = 4


class BatchSize:
    """
    Follows what the last flushes took, between two bounds.

    Args:
        most_events: It begins here, and never goes beyond.
        target_ms: How long a flush may take.
    """

    def __init__(self, most_events: int, target_ms: float = TARGET_MS) -> None:
        self._most = most_events
        self._least = min(_LEAST_EVENTS, most_events)
        self._target_ms = target_ms
        self._took_ms = 0.0
        self.events = most_events

    def change(self, most_events: int) -> None:
        """Other bounds from now on; it begins anew at the upper one."""
        self._most = self.events = most_events
        self._least = min(_LEAST_EVENTS, most_events)

    def note(self, events: int, took_ms: float) -> None:
        """
        A flush of so many events has taken so long.

        Too long: the next is smaller by as much. Easily in time and full: the next is larger,
        a step at a time, because what made the last ones slow may still be there.
        """
        self._took_ms = took_ms
        if took_ms > self._target_ms:
            fitting = int(min(events, self.events) * self._target_ms / took_ms)
            self.events = max(self._least, fitting)
        elif events >= self.events and took_ms <= self._target_ms / 2:
            self.events = min(self._most, int(self.events * _GROWTH))

    def linger_ms(self, asked_ms: float) -> float:
        """
        How long events wait for company before the next flush.

        Args:
            asked_ms: At least so long; 0 where nothing may wait.
        """
        return max(asked_ms, min(_REST * self._took_ms, self._target_ms)) if asked_ms else 0.0
