"""
A shard's upkeep: what expires, what is trimmed, how large the log is, which partitions
are shut, and how old the events may be that still wait in a spool.

None of it stands on the way of an event. While the log is out of reach everything that
was known stays as it was, and nothing expires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from ray_tracking.clock import Clock
from ray_tracking.errors import LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.admit import Partition
from ray_tracking.pipeline.level import DrainRate
from ray_tracking.pipeline.spooling import SpoolWatch
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.rows import PositionReader
from ray_tracking.tasks import wanted

_EVERY_S = 1.0
_TRIM_EVERY_MS = 5000

log = structlog.get_logger("ray_tracking.shard")


class Upkeep:
    """
    Runs beside the append loop of one shard.

    Args:
        name: Of the shard.
        event_log: Its log.
        positions: What has become rows.
        clock: Unix milliseconds, never going back.
        max_log_bytes: How large the log may become.
    """

    def __init__(
        self,
        name: str,
        event_log: EventLog,
        positions: PositionReader,
        clock: Clock,
        max_log_bytes: int,
    ) -> None:
        self._name = name
        self._log = event_log
        self._positions = positions
        self._clock = clock
        self.max_log_bytes = max_log_bytes
        self._all_partitions: Collection[int] = ()
        self._shrinking = DrainRate()
        self._trim_due_ms = 0
        self.spools = SpoolWatch(clock())
        #: Partitions with a gap: they take nothing until an operator has accepted it.
        self.blocked: set[int] = set()
        self.log_bytes = 0

    async def begin(self, all_partitions: Collection[int]) -> int:
        """
        Read what a takeover needs.

        Returns:
            The Unix time in milliseconds before which nothing that came in can still be
            waiting in a spool.

        Raises:
            LogUnavailable: If the log does not answer.
        """
        self._all_partitions = all_partitions
        now_ms = self._clock()
        self.spools.read(await self._log.spools(), now_ms)
        return self.spools.floor_ms(now_ms)

    async def run(self, partitions: Collection[Partition]) -> None:
        """Keep these partitions, for as long as the shard lives."""
        while wanted():
            await asyncio.sleep(_EVERY_S)
            try:
                await self._turn(partitions)
            except LogUnavailable:
                self.spools.unreadable()
            except Exception:
                # Without this loop nothing expires and nothing is trimmed: it goes on.
                log.exception("housekeeping failed", shard=self._name)

    def room_in_s(self) -> float | None:
        """None while the log has room; otherwise in how many seconds it may have some."""
        excess = self.log_bytes - self.max_log_bytes
        return None if excess < 0 else self._shrinking.wait_s(excess, self._clock())

    async def _turn(self, partitions: Collection[Partition]) -> None:
        now_ms = self._clock()
        self.blocked = set(await self._log.gaps())
        self.spools.read(await self._log.spools(), now_ms)
        # While an event waits in a spool, what it will be compared with must stay.
        floor_ms = min(now_ms, self.spools.floor_ms(now_ms))
        for partition in partitions:
            partition.expire(floor_ms)
            partition.forget_spools(self.spools.reports)
        for spool_id in self.spools.stale:
            await self._log.forget_spool(spool_id)
        log_bytes = await self._log.size_bytes(self._all_partitions)
        if log_bytes < self.log_bytes:
            self._shrinking.note(self.log_bytes - log_bytes, now_ms)
        self.log_bytes = log_bytes
        if now_ms >= self._trim_due_ms or self.room_in_s() is not None:
            self._trim_due_ms = now_ms + _TRIM_EVERY_MS
            await self._trim(partitions)

    async def _trim(self, partitions: Collection[Partition]) -> None:
        stored = await self._positions.read()
        if stored is None:
            return  # Postgres does not answer: nobody knows what may go
        for partition in partitions:
            for lane in range(len(LANES)):
                keep_from = partition.keep_from(lane, stored[partition.number, lane])
                await self._log.trim(partition.number, lane, keep_from)
