"""
Somebody sets the clock of the machine, an hour ahead or back, while it works.

What is killed meanwhile starts on a machine whose clock has been set.
"""

from __future__ import annotations

from typing import ClassVar

from tests.chaos.faults.base import Fault

_HOUR_S = 3600


class StepOfClock(Fault):
    """The clock is set, and stays so until it is set again."""

    #: From the right time.
    ahead_s: ClassVar[int]

    def reason_to_skip(self) -> str | None:
        if self.target.clock is None:
            return "needs a clock of its own"
        return super().reason_to_skip()

    async def strike(self) -> bool:
        assert self.target.clock is not None
        self.target.clock.set(self.ahead_s)
        self.scene.strikes[f"clock {self.ahead_s / _HOUR_S:+g} h"] += 1
        return True


class ClockAhead(StepOfClock):
    name = "clock-ahead"
    ahead_s = _HOUR_S


class ClockBack(StepOfClock):
    name = "clock-back"
    ahead_s = -_HOUR_S


class ClockRight(StepOfClock):
    name = "clock-right"
    ahead_s = 0


FAULTS: tuple[type[Fault], ...] = (ClockAhead, ClockBack, ClockRight)
