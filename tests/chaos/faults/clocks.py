"""
Somebody sets the clock of the machine, an hour ahead or back, while it works.

All of the service, its servers too, run with libfaketime, which tells them the time that
stands in a file. What is killed meanwhile starts on a machine whose clock has been set.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tests.chaos.faults.base import Fault

#: libfaketime looks into its file so often.
_SEEN_AFTER_S = 1.5
_HOUR_S = 3600


class StepOfClock(Fault):
    """The clock is set, and stays so until it is set again."""

    #: From the right time.
    ahead_s: ClassVar[int]

    def reason_to_skip(self) -> str | None:
        if self.target.clock_file is None:
            return "needs a clock of its own"
        return super().reason_to_skip()

    async def strike(self) -> bool:
        assert self.target.clock_file is not None
        self.target.clock_file.write_text(f"{self.ahead_s:+d}\n")
        self.scene.strikes[f"clock {self.ahead_s / _HOUR_S:+g} h"] += 1
        await asyncio.sleep(_SEEN_AFTER_S)
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
