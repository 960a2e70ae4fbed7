"""
The writer: reads the log behind the shards and turns its entries into rows.

A pump for each lane, with its own positions and its own connections, so that a bounce does
not queue behind a backlog of opens, and nothing behind what is parked. They begin when each
has taken over and what an earlier writer may have died of is stored, one after the other.
Beside them, on a connection of its own, a roller counts what they have stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog

from ray_tracking.actors.control import ControlWatch
from ray_tracking.actors.pump import Pump, WriterConfig
from ray_tracking.actors.roller import Roller
from ray_tracking.clock import Clock
from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.control import Control
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.overview import worst_breaker
from ray_tracking.pipeline.parked import Budget
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.rolling import RollupWriter
from ray_tracking.stores.spans import Spans
from ray_tracking.tasks import wanted

log = structlog.get_logger("ray_tracking.writer")


class Writer:
    """
    A plain class; :mod:`ray_tracking.actors.parts` makes it an actor.

    Args:
        config: Who it is, and its rules.
        die: Ends this process. Called when the writer is fenced.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, config: WriterConfig, die: Callable[[str], None], clock: Clock) -> None:
        self._config = config
        self._die = die
        self._clock = clock
        self._pumps: list[Pump] = []
        self._budget = Budget(config.rate)
        self._log = EventLog(config.redis_url, config.redis_prefix)
        self._control = ControlWatch(config.name, self._log, self._go_by)
        name = f"{config.name}-rollups"
        self._roller = Roller(
            RollupWriter(config.database_url, config.database_schema, name, config.partitions),
            clock,
        )
        self._spans = Spans.to(config.otlp_endpoint, config.name)
        self._task: asyncio.Task[None] | None = None
        self._has_taken_over = False
        self._pace = Mode.HYBRID, Level.NORMAL

    async def start(self) -> None:
        """Begin to work. Safe to call again."""
        if self._task is None:
            self._pumps = [
                Pump(self._config, lane, self._budget, self._clock, self._roller.call, self._spans)
                for lane in LANES
            ]
            await self.set_pace(*self._pace)
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            with contextlib.suppress(LogUnavailable):  # it is looked for again later
                await self._control.look()
            async with asyncio.TaskGroup() as group:
                for pump in self._pumps:
                    group.create_task(pump.take_over())
            self._has_taken_over = True
            for pump in self._pumps:
                await pump.recover()
            if not wanted():
                return
            async with asyncio.TaskGroup() as group:
                for pump in self._pumps:
                    group.create_task(pump.run())
                group.create_task(self._roller.run())
                group.create_task(self._control.run())
        except* Fenced as fenced:
            reason = str(_innermost(fenced))
            log.error("writer ends", writer=self._config.name, reason=reason)
            self._die(reason)
        except* Exception as failed:
            log.exception("writer failed", writer=self._config.name)
            self._die(str(_innermost(failed)))

    def _go_by(self, control: Control) -> None:
        """Other rules from now on."""
        self._budget.change(control.admission.rate)
        for pump in self._pumps:
            pump.change(control.flush)

    async def set_pace(self, mode: Mode, level: Level) -> None:
        """Work as the processing mode and the level of back-pressure ask for."""
        self._pace = mode, level
        for pump in self._pumps:
            pump.set_pace(mode, level)

    async def drain(self) -> None:
        """
        Return when all that stands in the log is stored and counted.

        What is parked and has no budget stays.
        """
        # What is parked may go when the others were read.
        await asyncio.gather(*[pump.drain() for pump in self._pumps if pump.lane != Lane.PARKED])
        await asyncio.gather(*[pump.drain() for pump in self._pumps if pump.lane == Lane.PARKED])
        if self._pumps:
            await self._roller.drain()

    async def close(self) -> None:
        """Stop working and let go of every connection. A flush under way is rolled back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for pump in self._pumps:
            await pump.close()
        await self._roller.close()
        await self._log.close()
        if self._spans is not None:
            await self._spans.close()

    async def status(self) -> dict[str, Any]:
        """Figures for health and stats; answers only while the loop is alive."""
        now_ms = self._clock()
        queued = dict.fromkeys(LANES, 0) | {p.lane: p.queued_events for p in self._pumps}
        stalled_ms, stalled_lane = max(
            ((pump.stalled_ms(now_ms), str(pump.lane)) for pump in self._pumps), default=(0, None)
        )
        stored = dict.fromkeys(LANES, 0) | {p.lane: p.books.total for p in self._pumps}
        return {
            "name": self._config.name,
            #: Before that, it does not know the books.
            "started": self._has_taken_over,
            "pace": self._pace,
            "linger_ms": max((pump.linger_ms for pump in self._pumps), default=0),
            "rows": sum(pump.rows for pump in self._pumps),
            "batches": sum(pump.batches for pump in self._pumps),
            "books": Books.added(pump.books for pump in self._pumps)._asdict(),
            "stored": {str(lane): total for lane, total in stored.items()},
            "queued_events": queued[Lane.HIGH] + queued[Lane.NORMAL],
            "parked": queued[Lane.PARKED],
            "batch_events": min((pump.batch.events for pump in self._pumps), default=0),
            "queued_bytes": sum(pump.queued_bytes for pump in self._pumps),
            "oldest_ms": max(
                (p.oldest_ms(now_ms) for p in self._pumps if p.lane != Lane.PARKED), default=0
            ),
            "stalled_ms": stalled_ms,
            "stalled_lane": stalled_lane,
            "breaker": worst_breaker(
                {"breaker": pump.flusher.breaker.describe(now_ms)} for pump in self._pumps
            ),
            "rollups": self._roller.status(),
            #: Names the rules that it goes by.
            "control": self._control.version,
            "trouble": next((pump.trouble for pump in self._pumps if pump.trouble), None)
            or (f"figures stand still: {why}" if (why := self._roller.trouble) else None),
        }


def _innermost(error: Exception) -> Exception:
    """The first error of groups within groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
