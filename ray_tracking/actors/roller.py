"""
The roller: counts rows into the figures of campaigns, a little behind the writer.

It waits a moment after each flush, so that it counts what has gathered in one go, and while
it is far behind it leaves the machine to others for as long as it has used it itself.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import structlog

from ray_tracking.actors.signal import Signal
from ray_tracking.clock import Clock
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.stores.failures import StoreRefused, StoreUnavailable
from ray_tracking.stores.rolling import RollupWriter, Step
from ray_tracking.tasks import wanted

#: From one step to the next, at least.
_EVERY_MS = 250
#: Without being told that there is something.
_LOOK_ANYWAY_MS = 5000
#: In one transaction.
_MAX_ROWS = 20_000
_DRAIN_LOOK_MS = 20
_BACKOFF = Backoff(first_s=0.2, longest_s=5.0)

log = structlog.get_logger("ray_tracking.roller")


class Roller:
    """
    Counts the rows of some partitions, for as long as it lives.

    Args:
        rollups: Its session.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, rollups: RollupWriter, clock: Clock) -> None:
        self._rollups = rollups
        self._clock = clock
        self._changed = Signal()
        self._draining = False
        #: Rows were stored since the last step began.
        self._called = True
        self._last = Step(0, 0)
        self._steps_begun = 0
        self._steps_done = 0
        self.rows = 0
        #: Why nothing is counted now.
        self.trouble: str | None = None

    def call(self) -> None:
        """Say that rows were stored."""
        self._called = True
        self._changed.send()

    async def run(self) -> None:
        """
        Count.

        Raises:
            Fenced: When another roller has taken over.
        """
        attempt = 0
        has_taken_over = False
        while wanted():
            began_ms = self._clock()
            try:
                if not has_taken_over:
                    await self._rollups.take_over()
                    has_taken_over = True
                self._called = False
                self._steps_begun += 1
                self._last = await self._rollups.step(_MAX_ROWS)
            except (StoreUnavailable, StoreRefused) as error:
                self._called = True
                self.trouble = str(error)
                log.warning("not counted yet", reason=str(error))
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
                continue
            attempt = 0
            self.trouble = None
            self._steps_done = self._steps_begun
            self.rows += self._last.rows
            if self._last.rows:
                took_ms = self._clock() - began_ms
                log.debug(
                    "counted", rows=self._last.rows, behind=self._last.behind, took_ms=took_ms
                )
            self._changed.send()
            await self._rest(self._clock() - began_ms)

    async def drain(self) -> None:
        """Return when all rows that are stored now are counted."""
        self._draining = True
        # The step that is under way may have looked before the last rows came.
        wanted_step = self._steps_begun + 1
        self.call()
        while self._steps_done < wanted_step or self._last.behind:
            await self._changed.wait(_DRAIN_LOOK_MS)

    async def close(self) -> None:
        """Drop the connection. A step under way is rolled back."""
        await self._rollups.close()

    def status(self) -> dict[str, Any]:
        """Figures for health and stats."""
        return {"rows": self.rows, "behind": self._last.behind, "trouble": self.trouble}

    async def _rest(self, took_ms: int) -> None:
        """Wait until there is something to do, and it is time."""
        pause_ms = min(took_ms, _EVERY_MS) if self._last.behind else _EVERY_MS - took_ms
        due_ms = self._clock() + pause_ms
        while not self._draining and (left_ms := due_ms - self._clock()) > 0:
            await self._changed.wait(left_ms)
        if not self._called and not self._last.behind:
            await self._changed.wait(_LOOK_ANYWAY_MS)
