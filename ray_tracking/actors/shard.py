"""
The shard: owns some partitions, admits their events and appends them to the log.

A reply to :meth:`Shard.submit` is what an acknowledgement stands on: an event is
``ACCEPTED`` only when the log has it, fsynced. All events that arrive while one append
is on its way go together in the next.

A shard that finds itself fenced, or the log not as it left it, ends its process. It
never takes over again by itself: its successor reads from the assignment what it owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from ray_tracking.actors.clock import Clock, steady_clock
from ray_tracking.actors.tasks import wanted
from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.admit import (
    RETRY_AFTER_S,
    AdmissionPolicy,
    Append,
    Partition,
    Reservation,
    State,
)
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.gather import Outcome, Verdict, pack_outcomes, unpack
from ray_tracking.stores.log import Appended, EventLog
from ray_tracking.stores.rows import PositionReader

_UNAVAILABLE = Outcome(Verdict.UNAVAILABLE, retry_after_s=RETRY_AFTER_S)
_REPEAT_AFTER_S = 0.2
_HOUSEKEEPING_S = 1.0
_TRIM_EVERY_S = 5.0

log = structlog.get_logger("ray_tracking.shard")


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard needs to know. Travels to its process."""

    name: str
    redis_url: str
    redis_prefix: str
    database_url: str
    database_schema: str
    policy: AdmissionPolicy
    max_buffered_events: int


class Shard:
    """
    A plain class; :mod:`ray_tracking.actors.parts` makes it an actor.

    Args:
        config: Who it is, and its rules.
        die: Ends this process. Called when the shard is fenced.
        clock: Unix milliseconds, never going back.
    """

    def __init__(
        self, config: ShardConfig, die: Callable[[str], None], clock: Clock | None = None
    ) -> None:
        self._config = config
        self._die = die
        self._clock = clock or steady_clock()
        self._log = EventLog(config.redis_url, config.redis_prefix)
        self._positions = PositionReader(config.database_url, config.database_schema, config.name)
        self._partitions: dict[int, Partition] = {}
        self._waiting: dict[Append, asyncio.Future[None]] = {}
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._starting: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._blocked: set[int] = set()

    # -- life ----------------------------------------------------------------

    async def start(self) -> None:
        """
        Take over what the assignment gives us. Safe to call again.

        Raises:
            Fenced: If another shard was faster; this one has ended.
            LogUnavailable: If the log does not answer now.
        """
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        try:
            await asyncio.shield(self._starting)
        except LogUnavailable:
            self._starting = None  # the next call tries again
            raise

    async def drain(self) -> None:
        """Admit nothing more, and return when all that was admitted is in the log."""
        self._draining = True
        await self._idle.wait()

    async def close(self) -> None:
        """Stop working and let go of every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._log.close()
        await self._positions.close()

    async def _start(self) -> None:
        try:
            await self._take_over()
        except Fenced as error:
            self._end(str(error))
            raise
        log.info("shard started", shard=self._config.name, partitions=list(self._partitions))
        self._tasks = [
            asyncio.create_task(self._append_loop()),
            asyncio.create_task(self._housekeeping_loop()),
        ]

    async def _take_over(self) -> None:
        assignment = await self._log.assignment()
        owned = assignment.shards.get(self._config.name, []) if assignment else []
        stored = await self._positions.read()
        now_ms = self._clock()
        policy = self._config.policy
        # All at once, so that their markers share fsyncs; and all to their end, so that
        # a start that is tried again does not meet its own.
        taken = await asyncio.gather(
            *[
                self._log.take_over(
                    number,
                    stored_epoch=max(stored[number, lane].epoch for lane in range(len(LANES)))
                    if stored
                    else 0,
                    now_s=now_ms / 1000,
                    since_ms=now_ms - policy.longest_ms,
                )
                for number in owned
            ],
            return_exceptions=True,
        )
        for number, takeover in zip(owned, taken, strict=True):
            if isinstance(takeover, BaseException):
                raise takeover
            partition = Partition(number, policy, epoch=takeover.epoch, totals=takeover.totals)
            for lane, entries in enumerate(takeover.tail):
                for entry in entries:
                    partition.restore(entry, lane, now_ms=now_ms)
            self._partitions[number] = partition

    # -- events --------------------------------------------------------------

    async def submit(self, blob: bytes) -> bytes:
        """
        Admit the submissions of one blob, and answer when each is decided.

        Takes :func:`~ray_tracking.pipeline.gather.pack`'s form and answers
        :func:`~ray_tracking.pipeline.gather.pack_outcomes`'s.
        """
        submissions = unpack(blob)
        try:
            await self.start()
        except LogUnavailable:
            return pack_outcomes([_UNAVAILABLE] * len(submissions))
        buffered = sum(len(append.submissions) for append in self._waiting)
        if self._draining or (
            buffered and buffered + len(submissions) > self._config.max_buffered_events
        ):
            return pack_outcomes([_UNAVAILABLE] * len(submissions))
        now_ms = self._clock()
        results: list[Outcome | Reservation] = []
        for submission in submissions:
            partition = self._partitions.get(submission.partition)
            if partition is None or submission.partition in self._blocked:
                results.append(_UNAVAILABLE)
            else:
                results.append(partition.offer(submission, now_ms=now_ms))
        places = {result.append for result in results if isinstance(result, Reservation)}
        if places:
            loop = asyncio.get_running_loop()
            for append in places:
                self._waiting.setdefault(append, loop.create_future())
            self._idle.clear()
            self._dirty.set()
            await asyncio.gather(*[asyncio.shield(self._waiting[append]) for append in places])
        return pack_outcomes([r.outcome() if isinstance(r, Reservation) else r for r in results])

    async def status(self) -> dict[str, Any]:
        """Figures for health and stats; answers only while the loop is alive."""
        partitions = self._partitions.values()
        now_ms = self._clock()
        return {
            "name": self._config.name,
            "started": bool(self._tasks),
            "partitions": sorted(self._partitions),
            "buffered": sum(len(append.submissions) for append in self._waiting),
            "unclear": [p.number for p in partitions if p.unclear],
            "blocked": sorted(self._blocked),
            "appended": sum(sum(p.totals) for p in partitions),
            "dedup_ids": sum(len(p.window) for p in partitions),
            "dedup_window_ms": self._config.policy.window.longest_ms,
            "dedup_evicted_early": sum(p.window.evicted_early for p in partitions),
            "dedup_effective_ms": min(
                (p.window.effective_ms(now_ms) for p in partitions),
                default=self._config.policy.window.longest_ms,
            ),
        }

    # -- the append loop -----------------------------------------------------

    async def _append_loop(self) -> None:
        try:
            while wanted():
                await self._wait_for_work()
                repeats = [a for p in self._partitions.values() for a in p.repeats()]
                now_ms = self._clock()
                fresh = [a for p in self._partitions.values() for a in p.take(now_ms=now_ms)]
                if appends := repeats + fresh:
                    await self._append(appends)
        except Fenced as error:
            self._end(str(error))
        except Exception as error:
            # A loop that stands still would keep everybody waiting: the successor starts clean.
            log.exception("append loop failed")
            self._end(f"{type(error).__name__}: {error}")

    async def _wait_for_work(self) -> None:
        unclear = any(p.unclear for p in self._partitions.values())
        try:
            async with asyncio.timeout(_REPEAT_AFTER_S if unclear else None):
                await self._dirty.wait()
        except TimeoutError:
            pass
        self._dirty.clear()

    async def _append(self, appends: Sequence[Append]) -> None:
        if not self._log.appender_connected and not await self._verify():
            results = [Appended.REFUSED] * len(appends)
        else:
            results = await self._log.append(appends)
        now_ms = self._clock()
        for append, result in zip(appends, results, strict=True):
            self._settle(self._partitions[append.partition], append, result, now_ms)
        if not self._waiting:
            self._idle.set()
        elif any(append.state is State.OPEN for append in self._waiting):
            self._dirty.set()

    def _settle(self, partition: Partition, append: Append, result: Appended, now_ms: int) -> None:
        if result is Appended.OK:
            partition.committed(append, now_ms=now_ms)
        elif result is Appended.FENCED:
            raise Fenced(f"partition {append.partition} has a later owner")
        elif result is Appended.GONE:
            raise Fenced(f"the log of partition {append.partition} is gone")
        elif result is Appended.UNCLEAR:
            if append.state is not State.UNCLEAR:
                log.warning("append unclear", partition=append.partition, id=str(append.id))
                partition.became_unclear(append)
        elif append.state is not State.UNCLEAR:
            # A repeat that is refused says nothing of the first try: it stays unclear.
            partition.refused(append)
        self._answer_settled()

    def _answer_settled(self) -> None:
        for append in [a for a in self._waiting if a.state not in (State.OPEN, State.SENT)]:
            self._waiting.pop(append).set_result(None)

    async def _verify(self) -> bool:
        """
        After a lost connection: is the log still as we left it?

        Raises:
            Fenced: If it is not: flushed, replaced, set back, or somebody else's.
        """
        for partition in self._partitions.values():
            unclear = {append.lane: append.id for append in partition.repeats()}
            for lane in range(len(LANES)):
                expected = {partition.last_id(lane), unclear.get(lane)}
                try:
                    last: EntryId = await self._log.last_id(partition.number, lane)
                except LogUnavailable:
                    return False
                if last not in expected:
                    raise Fenced(
                        f"partition {partition.number} ends at {last}, "
                        f"we left it at {partition.last_id(lane)}"
                    )
        return True

    def _end(self, reason: str) -> None:
        log.error("shard ends", shard=self._config.name, reason=reason)
        for future in self._waiting.values():
            future.set_result(None)
        self._waiting.clear()
        self._idle.set()
        self._die(reason)

    # -- housekeeping --------------------------------------------------------

    async def _housekeeping_loop(self) -> None:
        due_ms = 0
        while wanted():
            await asyncio.sleep(_HOUSEKEEPING_S)
            now_ms = self._clock()
            for partition in self._partitions.values():
                partition.expire(now_ms)
            try:
                self._blocked = set(await self._log.gaps())
                if now_ms >= due_ms:
                    due_ms = now_ms + int(_TRIM_EVERY_S * 1000)
                    await self._trim()
            except LogUnavailable:
                continue
            except Exception:
                # Without this loop nothing expires and nothing is trimmed: it goes on.
                log.exception("housekeeping failed", shard=self._config.name)

    async def _trim(self) -> None:
        stored = await self._positions.read()
        if stored is None:
            return  # Postgres does not answer: nobody knows what may go
        for partition in self._partitions.values():
            for lane in range(len(LANES)):
                keep_from = partition.keep_from(lane, stored[partition.number, lane])
                await self._log.trim(partition.number, lane, keep_from)
