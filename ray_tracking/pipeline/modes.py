"""The processing mode, from throughput, backlog and level of the whole cluster."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from ray_tracking.events import Lane
from ray_tracking.pipeline.level import Level

#: Below it, and at less than half of the threshold's throughput, each event goes at once.
_REALTIME_BELOW_EVENTS = 100
_REALTIME_SHARE = 0.5
#: ``BATCH`` is left well below the throughput at which it is entered.
_RELEASE = 0.8


class Mode(StrEnum):
    REALTIME = "REALTIME"
    BATCH = "BATCH"
    HYBRID = "HYBRID"


def pinned_mode(name: str) -> Mode | None:
    """The mode that the setting ``processing_mode`` names; None for ``auto``."""
    return None if name == "auto" else Mode(name.upper())


def mode_of(lane: Lane, mode: Mode) -> Mode:
    """How an event is processed while a mode is in force: what has priority always at once."""
    return Mode.REALTIME if lane is Lane.HIGH else mode


class ModeGauge:
    """
    The mode in force.

    Args:
        threshold_per_s: The throughput over which events are batched.
        pinned: The mode that an operator has chosen, if one has.
    """

    def __init__(self, threshold_per_s: float, pinned: Mode | None = None) -> None:
        self._threshold_per_s = threshold_per_s
        self._pinned = pinned
        self.mode = pinned or Mode.HYBRID

    def change(self, threshold_per_s: float, pinned: Mode | None) -> None:
        """Go by another threshold, or another choice, from the next update on."""
        self._threshold_per_s, self._pinned = threshold_per_s, pinned

    def update(self, level: Level, per_s: float, backlog: int) -> tuple[Mode, Mode] | None:
        """
        Take new figures in.

        Returns:
            The old and the new mode if they differ.
        """
        old = self.mode
        self.mode = self._pinned or self._mode(level, per_s, backlog)
        return (old, self.mode) if self.mode is not old else None

    def _mode(self, level: Level, per_s: float, backlog: int) -> Mode:
        stays = self.mode is Mode.BATCH
        threshold = self._threshold_per_s * (_RELEASE if stays else 1.0)
        if level >= Level.CRITICAL or per_s > threshold:
            return Mode.BATCH
        if backlog < _REALTIME_BELOW_EVENTS and per_s < self._threshold_per_s * _REALTIME_SHARE:
            return Mode.REALTIME
        return Mode.HYBRID


class Throughput:
    """
    How fast a count grows: now, and at the most.

    Args:
        over_ms: Now is the time since then.
        least_ms: What came in less counts as if it had taken so long, and is no rate yet.
    """

    def __init__(self, over_ms: int = 5000, least_ms: int = 1000) -> None:
        self._over_ms, self._least_ms = over_ms, least_ms
        self._counts: deque[tuple[int, int]] = deque()
        self.per_s = 0.0
        self.peak_per_s = 0.0

    def update(self, count: int, now_ms: int) -> None:
        """The count now. One that has gone back is a new one."""
        if self._counts and count < self._counts[-1][1]:
            self._counts.clear()
        self._counts.append((now_ms, count))
        while now_ms - self._counts[0][0] > self._over_ms:
            self._counts.popleft()
        at_ms, before = self._counts[0]
        self.per_s = 1000 * (count - before) / max(self._least_ms, now_ms - at_ms)
        self.peak_per_s = max(self.peak_per_s, self.per_s)
