"""
How full we are: the level of back-pressure, and how soon there is room again.

A level is reached at its threshold and left well below it, so that a backlog that swings
around a threshold does not change the level, and with it the mode, at each swing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

#: The rate is that of the last ten seconds at the most.
DRAIN_WINDOW_MS = 10_000
#: What drains within one slot is kept as one number.
DRAIN_SLOT_MS = 100
#: Nobody is told to come back sooner, or later, than this.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0


class Level(StrEnum):
    """The levels compare by severity, not by their names."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def severity(self) -> int:
        return list(Level).index(self)

    def __lt__(self, other: str) -> bool:
        return self.severity < Level(other).severity

    def __le__(self, other: str) -> bool:
        return self.severity <= Level(other).severity

    def __gt__(self, other: str) -> bool:
        return self.severity > Level(other).severity

    def __ge__(self, other: str) -> bool:
        return self.severity >= Level(other).severity


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """The backlog, in events, at which each level begins; ascending."""

    warning: int
    critical: int
    emergency: int
    #: A level is left when the backlog is below this share of its threshold.
    release: float = 0.8

    def level(self, backlog: int, share: float = 1.0) -> Level:
        """The highest level of whose threshold the backlog has this share."""
        if backlog >= share * self.emergency:
            return Level.EMERGENCY
        if backlog >= share * self.critical:
            return Level.CRITICAL
        if backlog >= share * self.warning:
            return Level.WARNING
        return Level.NORMAL


class LevelGauge:
    """
    The level that a backlog stands at.

    Args:
        policy: Where each level begins, and where it ends.
    """

    def __init__(self, policy: LevelPolicy) -> None:
        self.policy = policy
        self.level = Level.NORMAL

    def update(self, backlog: int) -> tuple[Level, Level] | None:
        """
        Take a new backlog in: up at once, down as far as the levels are left.

        Returns:
            The old and the new level if they differ.
        """
        old = self.level
        reached = self.policy.level(backlog)
        not_left = self.policy.level(backlog, self.policy.release)
        self.level = max(reached, min(old, not_left))
        return (old, self.level) if self.level is not old else None


class DrainRate:
    """
    How fast something drains, for a Retry-After.

    The rate is that of the last ten seconds, or of the time since draining began if that is
    less. At first it may be too high by what one note tells; it is never held up by a pause.
    """

    def __init__(self) -> None:
        #: ``[start, count]``, oldest first.
        self._slots: deque[list[int]] = deque()

    def note(self, drained: int, now_ms: int) -> None:
        """So many more have drained; ``now_ms`` never goes back."""
        self._expire(now_ms)
        if not self._slots or now_ms - self._slots[-1][0] >= DRAIN_SLOT_MS:
            self._slots.append([now_ms, 0])
        self._slots[-1][1] += drained

    def per_s(self, now_ms: int) -> float:
        """The present rate; 0 when nothing drained in the last ten seconds."""
        self._expire(now_ms)
        if not self._slots:
            return 0.0
        # A second at least: the first note is no rate yet.
        over_ms = max(1000, now_ms - self._slots[0][0])
        return 1000 * sum(count for _, count in self._slots) / over_ms

    def wait_s(self, excess: int, now_ms: int) -> float:
        """
        How long until ``excess`` of them have drained at the present rate.

        Returns:
            Between 1 and 30 seconds; 30 when nothing drains.
        """
        per_s = self.per_s(now_ms)
        wait_s = excess / per_s if per_s else LONGEST_WAIT_S
        return min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, wait_s))

    def _expire(self, now_ms: int) -> None:
        while self._slots and self._slots[0][0] <= now_ms - DRAIN_WINDOW_MS:
            self._slots.popleft()
