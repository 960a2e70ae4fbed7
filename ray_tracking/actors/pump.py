"""
A pump: moves some lanes of the log into Postgres.

It reads ahead into a queue that is bounded in bytes, checks that nothing is missing, and
flushes batch by batch; positions and rows move in one transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import structlog

from ray_tracking.actors.clock import Clock
from ray_tracking.actors.tasks import wanted
from ray_tracking.errors import LogUnavailable
from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import BadEntry, Entry, EntryId, Kind
from ray_tracking.pipeline.write import FlushPolicy, Follower, LogGap
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.rows import (
    Move,
    PositionReader,
    RowWriter,
    StoreUnavailable,
    Where,
)

_READ_ENTRIES = 64
_BLOCK_MS = 500
_DRAIN_BLOCK_MS = 20
_LOOK_AGAIN_MS = 1000
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger("ray_tracking.writer")


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """What a writer needs to know. Travels to its process."""

    name: str
    redis_url: str
    redis_prefix: str
    database_url: str
    database_schema: str
    partitions: tuple[int, ...]
    flush: FlushPolicy


class _Read(NamedTuple):
    where: Where
    entry: Entry
    read_ms: int

    @property
    def size_bytes(self) -> int:
        return len(self.entry.body) + 256


class Pump:
    """
    Moves the entries of some lanes into Postgres, for as long as it lives.

    Args:
        config: Of the writer.
        lanes: Which lanes of its partitions.
        max_age_ms: How long an entry may wait for company.
        clock: Unix milliseconds, never going back.
    """

    def __init__(
        self, config: WriterConfig, lanes: Iterable[Lane], max_age_ms: int, clock: Clock
    ) -> None:
        codes = [LANES.index(lane) for lane in lanes]
        wheres = [(number, code) for number in config.partitions for code in codes]
        name = f"{config.name}-{'-'.join(LANES[code] for code in codes)}"
        self._log = EventLog(config.redis_url, config.redis_prefix)
        self._rows = RowWriter(config.database_url, config.database_schema, name, wheres)
        self._policy = FlushPolicy(config.flush.max_events, max_age_ms)
        self._clock = clock
        self._followers: dict[Where, Follower] = {}
        self._positions = PositionReader(config.database_url, config.database_schema, name)
        #: Streams that stand at a gap, and when to look whether it was accepted.
        self._stuck: set[Where] = set()
        self._look_again_ms = 0
        self._stored: dict[Where, EntryId] = {}
        self._queue: deque[_Read] = deque()
        self._changed = asyncio.Event()
        self.queued_bytes = 0
        self.queued_events = 0
        self.rows = 0
        self.batches = 0
        self.progress_ms = clock()
        self.trouble: str | None = None
        self._reads = 0
        self._at_end = False
        self._flushing = False
        self._draining = False

    async def run(self) -> None:
        """
        Take over, then read and flush.

        Raises:
            Fenced: When another writer has taken over.
        """
        self._stored = await self._persist(self._rows.take_over)
        self._followers = {where: Follower(at) for where, at in self._stored.items()}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_loop())
            group.create_task(self._flush_loop())

    async def drain(self) -> None:
        """Return when what stands in the log now has become rows."""
        self._draining = True
        reads = self._reads
        # The read that is under way may have begun before the last append.
        # A marker without a chain stays in the queue: its takeover may never be completed.
        while self.queued_events or self._flushing or self._reads < reads + 2 or not self._at_end:
            await self._wait_for_change(_DRAIN_BLOCK_MS)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._log.close()
        await self._rows.close()
        await self._positions.close()

    # -- reading ---------------------------------------------------------------

    async def _read_loop(self) -> None:
        attempt = 0
        while wanted():
            while self.queued_bytes >= self._policy.max_queue_bytes:
                await self._wait_for_change(None)
            if self._stuck and self._clock() >= self._look_again_ms:
                await self._look_at_gaps()
            positions = {where: f.position for where, f in self._followers.items()}
            if not positions:
                await asyncio.sleep(_BLOCK_MS / 1000)
                continue
            try:
                found = await self._log.read(
                    positions,
                    max_entries=_READ_ENTRIES,
                    block_ms=_DRAIN_BLOCK_MS if self._draining else _BLOCK_MS,
                )
            except LogUnavailable as error:
                self.trouble = str(error)
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1
                continue
            except BadEntry as error:
                self.trouble = str(error)
                log.error("log entry not readable", reason=str(error))
                await asyncio.sleep(_BACKOFF_S[-1])
                continue
            attempt = 0
            self._reads += 1
            self._at_end = not found
            for partition, lane, entries in found:
                await self._follow((partition, lane), entries)
            self._changed.set()

    async def _follow(self, where: Where, entries: list[Entry]) -> None:
        follower = self._followers[where]
        now_ms = self._clock()
        try:
            for entry in entries:
                follower.accept(entry)
                read = _Read(where, entry, now_ms)
                self._queue.append(read)
                self.queued_bytes += read.size_bytes
                self.queued_events += entry.header.count
        except LogGap as gap:
            # Nothing is skipped: this stream stands still until an operator accepts the gap.
            del self._followers[where]
            self._stuck.add(where)
            text = f"lane {LANES[where[1]]}: {gap}"
            log.error("gap in the log", partition=where[0], reason=text)
            self.trouble = text
            await self._log.report_gap(where[0], text)
        self._changed.set()

    async def _look_at_gaps(self) -> None:
        """Go on where an operator has moved a position past a gap."""
        self._look_again_ms = self._clock() + _LOOK_AGAIN_MS
        stored = await self._positions.read() or {}
        for where in list(self._stuck):
            if stored.get(where, self._stored[where]) > self._stored[where]:
                self._stored[where] = stored[where]
                self._followers[where] = Follower(stored[where])
                self._stuck.discard(where)

    # -- writing ---------------------------------------------------------------

    async def _flush_loop(self) -> None:
        while True:
            if not self._queue:
                await self._wait_for_change(None)
                continue
            age_ms = self._clock() - self._queue[0].read_ms
            wait_ms = self._policy.wait_ms(self.queued_events, age_ms)
            if wait_ms and not self._draining:
                await self._wait_for_change(wait_ms)
                continue
            if moves := self._take():
                self._flushing = True
                await self._store(moves)
                self._flushing = False
            else:
                # Only a marker whose chain is still to come.
                await self._wait_for_change(None)

    def _take(self) -> list[Move]:
        """The next flush: whole entries, in log order, up to the batch size."""
        taken: dict[Where, list[_Read]] = {}
        events = 0
        while self._queue and events < self._policy.max_events:
            read = self._queue.popleft()
            taken.setdefault(read.where, []).append(read)
            events += read.entry.header.count
        for where, reads in list(taken.items()):
            # A position is never stored on a marker: a successor that started there
            # could not compare the chain with anything.
            while reads and reads[-1].entry.header.kind is Kind.MARKER:
                self._queue.appendleft(reads.pop())
            if not reads:
                del taken[where]
        for read in chain.from_iterable(taken.values()):
            self.queued_bytes -= read.size_bytes
            self.queued_events -= read.entry.header.count
        return [
            Move(where, self._stored[where], reads[-1].entry.id, [read.entry for read in reads])
            for where, reads in taken.items()
        ]

    async def _store(self, moves: list[Move]) -> None:
        async def flush() -> None:
            await self._rows.flush(moves)

        async def settle_or_flush() -> None:
            if not await self._rows.settle(moves):
                await self._rows.flush(moves)

        try:
            await flush()
        except StoreUnavailable as error:
            log.warning("flush unclear", reason=str(error))
            self.trouble = str(error)
            await self._persist(settle_or_flush)
        for move in moves:
            self._stored[move.where] = move.new
            self.rows += move.events
        self.batches += 1
        self.progress_ms = self._clock()
        self.trouble = None
        self._changed.set()

    async def _persist(self, ask: Callable[[], Any]) -> Any:
        """Ask until Postgres answers."""
        attempt = 0
        while True:
            try:
                return await ask()
            except StoreUnavailable as error:
                self.trouble = str(error)
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1

    async def _wait_for_change(self, at_most_ms: float | None) -> None:
        try:
            async with asyncio.timeout(at_most_ms / 1000 if at_most_ms is not None else None):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
