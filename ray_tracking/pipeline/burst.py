"""
Whether events come in so fast that storing them takes much of what would take more of them.

On a machine that does both, a burst is taken 1.5 times as fast while nothing is stored, and the
log keeps it meanwhile. So whoever wants that lets rows wait, for as long as a burst lasts.
"""

from __future__ import annotations

from ray_tracking.pipeline.modes import Throughput

#: A burst would have the writer busy for so much of the time.
_BUSY = 1 / 3
#: How fast events come in is looked at over so long.
_OVER_MS = 300
#: A flush that took longer was held up by something else.
_LONGEST_MS = 1000
#: How soon somebody looks again.
_LOOK_MS = 50.0


class Burst:
    """Follows what comes in, and what full flushes take."""

    def __init__(self) -> None:
        self._coming = Throughput(over_ms=_OVER_MS, least_ms=_OVER_MS)
        self._storing_per_s = 0.0

    def came(self, events: int, now_ms: int) -> None:
        """So many have been read since the beginning."""
        self._coming.update(events, now_ms)

    def stored(self, events: int, took_ms: float, full_events: int) -> None:
        """A flush is done. Only a full one that went well says what full ones would take."""
        if events >= full_events and took_ms <= _LONGEST_MS:
            self._storing_per_s = 1000 * events / max(1.0, took_ms)

    def wait_ms(self, age_ms: float, delay_ms: float) -> float:
        """
        How long to leave what is there, before somebody asks again; 0 when it is due.

        Args:
            age_ms: Of the oldest event.
            delay_ms: How old it may become; 0 where nothing may wait for this.
        """
        is_on = 0 < self._storing_per_s * _BUSY < self._coming.per_s
        return min(_LOOK_MS, max(0.0, delay_ms - age_ms)) if is_on else 0.0
