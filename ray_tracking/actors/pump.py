"""
A pump: moves some lanes of the log into Postgres.

It reads ahead into a backlog that is bounded in bytes, and flushes batch by batch; positions
and what they stand for move in one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ray_tracking.actors.flusher import Flusher
from ray_tracking.actors.reader import Reader
from ray_tracking.actors.recovery import recover
from ray_tracking.actors.signal import Signal
from ray_tracking.clock import Clock
from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import EntryId, Header
from ray_tracking.pipeline.backlog import Backlog
from ray_tracking.pipeline.batching import BatchSize
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.burst import Burst
from ray_tracking.pipeline.care import Standing
from ray_tracking.pipeline.flush import Move, Place, Refusal, Where, traced
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.parked import Budget
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.write import FlushPolicy
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_reader import LogReader
from ray_tracking.stores.rows import PositionReader, RowWriter
from ray_tracking.stores.spans import Spans

log = structlog.get_logger("ray_tracking.writer")

#: How often what is parked asks for budget.
_ASK_AGAIN_MS = 200
_DRAIN_LOOK_MS = 20
_PAUSE_S = 0.01
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """What a writer needs to know. Travels to its process."""

    name: str
    redis_url: str = field(repr=False)
    redis_prefix: str
    database_url: str = field(repr=False)
    database_schema: str
    partitions: tuple[int, ...]
    flush: FlushPolicy
    rate: RatePolicy
    clock_dir: Path | None = None
    failpoints_dir: Path | None = None
    log_level: str = "info"
    otlp_endpoint: str | None = None


class Pump:
    """
    Moves the entries of one lane into Postgres, for as long as it lives.

    Args:
        config: Of the writer.
        lane: Which lane of its partitions.
        budget: Of the campaigns, shared by the pumps of a writer.
        clock: Unix milliseconds, never going back.
        stored: Called when rows were stored.
        spans: Told of events whose requests are traced; None for nobody.
    """

    def __init__(
        self,
        config: WriterConfig,
        lane: Lane,
        budget: Budget,
        clock: Clock,
        stored: Callable[[], None],
        spans: Spans | None = None,
    ) -> None:
        wheres = [(number, LANES.index(lane)) for number in config.partitions]
        name = f"{config.name}-{lane}"
        self.lane = lane
        self._log = EventLog(config.redis_url, config.redis_prefix)
        self._log_reader = LogReader(config.redis_url, config.redis_prefix)
        self._rows = RowWriter(config.database_url, config.database_schema, name, wheres)
        self._stored = PositionReader(config.database_url, config.database_schema, name)
        self._policy = config.flush
        #: How long what was read waits for company at least, and how old it may become while
        #: a burst comes in.
        self._asked_ms = self._delay_ms = 0
        self._budget = budget
        self._clock = clock
        self._tell_stored = stored
        self._spans = spans
        self._changed = Signal()
        self._backlog = Backlog(wheres, config.flush.max_queue_bytes)
        charged = None if lane is Lane.PARKED else budget
        self._reader = Reader(
            self._log_reader, self._log, self._stored, self._backlog, charged, self._changed,
            clock, pause_s=0.0 if lane is Lane.HIGH else _PAUSE_S,
        )  # fmt: skip
        self.flusher = Flusher(self._rows, clock)
        self._standings: Mapping[Where, Standing] = {}
        #: Up to where each stream is stored.
        self._positions: dict[Where, EntryId] = {}
        #: How many entries had been read when nothing was found that may be stored.
        self._rested_at = -1
        self._draining = False
        self._rows_before = 0
        self.batches = 0
        #: How many events go into a flush.
        self.batch = BatchSize(config.flush.max_events)
        self._burst = Burst()
        self.progress_ms = clock()
        self.set_pace(Mode.HYBRID, Level.NORMAL)

    def change(self, policy: FlushPolicy) -> None:
        """Flush otherwise from now on. How much may wait stays as it is."""
        if policy.max_events != self._policy.max_events:
            self.batch.change(policy.max_events)
        self._policy = policy
        self.set_pace(*self._pace)

    # -- life --------------------------------------------------------------------

    async def take_over(self) -> None:
        """Become the writer of these streams, as soon as Postgres answers."""
        self._standings = await self.flusher.take_over()
        self._positions = {where: its.position for where, its in self._standings.items()}
        self._rows_before = self.books.rows

    async def recover(self) -> None:
        """Store with care what an earlier writer may have died of. Before :meth:`run`."""
        for move in await recover(self._log, self.flusher, self._standings):
            self._positions[move.where] = move.new

    async def run(self) -> None:
        """
        Read and flush.

        Raises:
            Fenced: When another writer has taken over.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reader.run(self._positions))
            group.create_task(self._flush_loop())

    async def drain(self) -> None:
        """
        Return when what stands in the log now is stored.

        Two things stay: a marker without a chain, whose takeover may never be completed,
        and what is parked and has no budget.
        """
        self._draining = self._reader.hurried = True
        self._rested_at = -1
        self._changed.send()
        # The read that is under way may have begun before the last append.
        ends = self._reader.ends + 2
        while not (
            self._reader.ends >= ends
            and self._reader.has_caught_up
            and self._rested_at == self._backlog.added
        ):
            await self._changed.wait(_DRAIN_LOOK_MS)

    def set_pace(self, mode: Mode, level: Level) -> None:
        """Work as the processing mode and the level of back-pressure ask for."""
        self._pace = mode, level
        # What has priority does not wait for company in any mode.
        high = self.lane is Lane.HIGH
        self._asked_ms = 0 if high else self._policy.linger_ms(mode, level)
        self._delay_ms = 0 if high else self._policy.delay_ms(mode)
        self._changed.send()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._log_reader.close()
        await self._log.close()
        await self._rows.close()
        await self._stored.close()

    # -- figures -----------------------------------------------------------------

    @property
    def books(self) -> Books:
        """What became of all events of these streams, as committed."""
        return Books.added(self._rows.books.values())

    @property
    def rows(self) -> int:
        """Stored since this pump began."""
        return self.books.rows - self._rows_before

    @property
    def linger_ms(self) -> float:
        """How long what was read waits for company."""
        return self.batch.linger_ms(self._asked_ms)

    @property
    def queued_events(self) -> int:
        return self._backlog.events

    @property
    def queued_bytes(self) -> int:
        return self._backlog.size_bytes

    def oldest_ms(self, now_ms: int) -> int:
        """How long the event has waited since it came in that waits longest here."""
        received_ms = self._backlog.oldest_received_ms
        return 0 if received_ms is None else max(0, now_ms - received_ms)

    def stalled_ms(self, now_ms: int) -> int:
        """How long it has stored nothing although something was there."""
        oldest_ms = self._backlog.oldest_ms
        if oldest_ms is None or self.lane is Lane.PARKED:  # which waits for budget
            return 0
        return now_ms - max(oldest_ms, self.progress_ms)

    @property
    def trouble(self) -> str | None:
        """Why it does not go on."""
        return self.flusher.trouble or self._reader.trouble

    # -- writing -----------------------------------------------------------------

    async def _flush_loop(self) -> None:
        while True:
            if wait_ms := self._wait_ms(self._clock()):
                await self._changed.wait(wait_ms)
                continue
            if moves := self._take():
                began_ms = self._clock()
                letters = await self.flusher.store(moves)
                events, took_ms = sum(move.events for move in moves), self._clock() - began_ms
                at_most = self.batch.events
                self.batch.note(events, took_ms)
                self._burst.stored(events, took_ms, at_most)
                log.debug(
                    "stored", lane=self.lane, events=events, took_ms=took_ms, at_most=at_most,
                    next_at_most=self.batch.events, linger_ms=self.linger_ms,
                    draining=self._draining, waiting=self._backlog.events,
                )  # fmt: skip
                self._record(moves, letters)
                self._positions |= {move.where: move.new for move in moves}
                self.batches += 1
                self.progress_ms = self._clock()
                self._changed.send()
                self._tell_stored()
            else:
                self._rested_at = self._backlog.added
                await self._changed.wait(_ASK_AGAIN_MS if self._backlog.events else None)

    def _wait_ms(self, now_ms: int) -> float:
        """How long to wait with the next flush, before looking again; 0 when it is due."""
        oldest_ms = self._backlog.oldest_ms
        if oldest_ms is None or self._draining:
            return 0.0
        self._burst.came(self._backlog.added_events, now_ms)
        late_ms = self.oldest_ms(now_ms) if self._delay_ms else 0
        return self._burst.wait_ms(late_ms, self._delay_ms) or self._policy.wait_ms(
            self._backlog.events, now_ms - oldest_ms, self.batch.events, self.linger_ms
        )

    def _record(self, moves: list[Move], letters: Mapping[Place, Refusal]) -> None:
        """Spans of the traced events among them, from their receipt until now."""
        if self._spans is None:
            return
        for event in traced(moves):
            attributes = {"tracking.lane": self.lane, "tracking.event_type": event.event_type}
            if refusal := letters.get(event.place):
                attributes["error.type"] = refusal.sqlstate or "dead_letter"
            self._spans.record(
                f"store {event.event_type}", event.traceparent, event.received_ms * _NS_PER_MS,
                self._clock() * _NS_PER_MS, kind="consumer", attributes=attributes,
                failed=refusal is not None,
            )  # fmt: skip

    def _take(self) -> list[Move]:
        taken = self._backlog.take(
            self.batch.events, self._has_budget if self.lane is Lane.PARKED else None
        )
        return [
            Move(where, self._positions[where], entries[-1].id, entries)
            for where, entries in taken.items()
        ]

    def _has_budget(self, where: Where, header: Header) -> bool:
        return self._budget.take(where, header, now_ms=self._clock())
