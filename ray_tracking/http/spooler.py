"""
The spools of this node, as one replica sees them: it writes its own, and drains that and
every other whose process has died.

Draining hands a spool over to the shards, chunk by chunk. The log is the cursor: shards
recognise what they have already, so a chunk may be sent as often as it takes.
"""

from __future__ import annotations

import asyncio
import random
import socket
from array import array
from collections.abc import Sequence
from pathlib import Path

import structlog

from ray_tracking import failpoints
from ray_tracking.clock import Clock
from ray_tracking.errors import LogUnavailable, Unavailable
from ray_tracking.http.gatherer import ShardCall
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.gather import (
    Chunk,
    Verdict,
    pack,
    pack_chunk,
    unpack,
    unpack_outcomes,
)
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Submission, received_ms
from ray_tracking.pipeline.spooling import MARGIN_MS, SpoolReport, records
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.spool import Record, Spool, SpoolFull, orphans
from ray_tracking.tasks import wanted

_REPORT_EVERY_S = 1.0
_CHUNK_EVENTS = 1000
_CHUNK_BYTES = 1024 * 1024
_CALL_WITHIN_S = 10.0
_BACKOFF = Backoff(first_s=0.1, longest_s=2.0)
_DONE = (Verdict.ACCEPTED, Verdict.DUPLICATE)

log = structlog.get_logger("ray_tracking.spool")


class Spooler:
    """
    Keeps events on disk while the log is out of reach, and brings them to it afterwards.

    Args:
        directory: Where the spools of this node are.
        own: The one that this process writes.
        event_log: Where spools are reported.
        drain: Sends a chunk to a shard.
        shard_of: The index of the shard that owns each partition.
        room: Bounds what may be on its way to the disk.
        clock: By which events get their time of receipt.
    """

    def __init__(
        self,
        directory: Path,
        own: Spool,
        event_log: EventLog,
        drain: ShardCall,
        shard_of: Sequence[int],
        room: Room,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._own = own
        self._log = event_log
        self._drain = drain
        self._shard_of = shard_of
        self._clock = clock
        self._node = socket.gethostname()
        #: Why it takes nothing, if it does not.
        self.trouble: str | None = None
        self._spools = [own]
        self._filled = asyncio.Event()
        #: What is on its way to the disk.
        self.room = room
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to report, adopt and drain."""
        self._tasks = [
            asyncio.create_task(self._report_loop()),
            asyncio.create_task(self._drain_loop()),
        ]

    async def append(self, submissions: Sequence[Submission]) -> None:
        """
        Return when they are on disk, fsynced.

        Raises:
            SpoolFull: If they are not.
        """
        size = len(submissions), sum(submission.size_bytes for submission in submissions)
        if not self.room.take(*size):
            raise SpoolFull("the disk does not keep up")
        try:
            for part in records(submissions):
                await self._own.append(pack(part), len(part))
            self.trouble = None
        except SpoolFull as error:
            self.trouble = str(error)
            raise
        finally:
            self.room.leave(*size)
        failpoints.reach("spool.written")
        self._filled.set()

    @property
    def events(self) -> int:
        """Events that wait here for the log."""
        return sum(spool.events for spool in self._spools)

    @property
    def size_bytes(self) -> int:
        """How large they are."""
        return sum(spool.size_bytes for spool in self._spools)

    @property
    def corrupt(self) -> int:
        """Records that could not be read any more, and were set aside."""
        return sum(spool.corrupt for spool in self._spools)

    async def close(self) -> None:
        """Let go of every spool. What is not empty waits for whoever adopts it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for spool in list(self._spools):
            await self._let_go(spool)
        await self._log.close()

    # -- reporting -------------------------------------------------------------

    async def _report_loop(self) -> None:
        while wanted():
            try:
                await self._adopt_orphans()
                for spool in list(self._spools):
                    await self._log.report_spool(spool.id, await self._report(spool))
            except LogUnavailable:
                pass  # the shards know what that means
            except Exception:
                log.exception("spools not reported")
            await asyncio.sleep(_REPORT_EVERY_S)

    async def _report(self, spool: Spool) -> SpoolReport:
        now_ms = floor_ms = self._clock()
        if not spool.is_empty and (records := await spool.read(spool.cursor, 1)):
            floor_ms = received_ms(unpack(records[0].payload)[0].event_id)
        return SpoolReport(self._node, floor_ms - MARGIN_MS, spool.events, spool.size_bytes, now_ms)

    async def _adopt_orphans(self) -> None:
        for spool_id in await orphans(self._directory):
            spool = await Spool.adopt(self._directory, spool_id)
            if spool is not None:
                log.warning("spool adopted", spool=spool_id, events=spool.events)
                self._spools.append(spool)
                self._filled.set()

    # -- draining --------------------------------------------------------------

    async def _drain_loop(self) -> None:
        attempt = 0
        while wanted():
            # Before looking: what comes while an empty one is let go must be seen.
            self._filled.clear()
            filled = [spool for spool in self._spools if not spool.is_empty]
            for spool in [s for s in self._spools if s is not self._own and s.is_empty]:
                self._spools.remove(spool)
                await self._let_go(spool)
            if not filled:
                attempt = 0
                await self._filled.wait()
                continue
            moved = [await self._drain_some(spool) for spool in filled]
            attempt = 0 if any(moved) else attempt + 1
            if attempt:
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))

    async def _drain_some(self, spool: Spool) -> bool:
        """Bring the next chunk of a spool to the log; whether that went well."""
        try:
            records = await spool.read(spool.cursor, _CHUNK_BYTES)
            if not records:
                return False
            if await self._hand_over(spool, _chunk_of(records)):
                return True
        except (Unavailable, TimeoutError):
            pass
        except Exception:
            log.exception("spool not drained", spool=spool.id)
        return False

    async def _hand_over(self, spool: Spool, records: Sequence[Record]) -> bool:
        start, end = spool.cursor, records[-1].end
        parts: dict[int, tuple[list[Submission], array[int]]] = {}
        for record in records:
            for submission in unpack(record.payload):
                shard = self._shard_of[submission.partition]
                submissions, offsets = parts.setdefault(shard, ([], array("Q")))
                submissions.append(submission)
                offsets.append(record.offset)
        for shard, (submissions, offsets) in parts.items():
            chunk = Chunk(spool.id, start, end, offsets.tobytes(), pack(submissions))
            async with asyncio.timeout(_CALL_WITHIN_S):
                outcomes = unpack_outcomes(await self._drain(shard, pack_chunk(chunk)))
            if any(outcome.verdict not in _DONE for outcome in outcomes):
                return False
        failpoints.reach("drain.advancing")
        await spool.advance(end)
        self.trouble = None  # there may be room again
        return True

    async def _let_go(self, spool: Spool) -> None:
        empty = spool.is_empty
        await spool.close()
        if empty:
            try:
                await self._log.forget_spool(spool.id)
            except LogUnavailable:
                log.warning("a spool that is gone is still reported", spool=spool.id)


def _chunk_of(records: Sequence[Record]) -> Sequence[Record]:
    """As many of the records as go into one chunk; at least one."""
    events = 0
    for count, record in enumerate(records):
        events += record.events
        if count and events > _CHUNK_EVENTS:
            return records[:count]
    return records
