"""
The shard: owns some partitions, admits their events and appends them to the log.

A reply to :meth:`Shard.submit` is what an acknowledgement stands on: an event is
``ACCEPTED`` only when the log has it, fsynced. All events that arrive while one append
is on its way go together in the next.

While the log is out of reach, or does not answer in good time, nothing gets a place:
such an event is ``AWAY``, definitely not in the log, and ingress spools it. A circuit
breaker says when to try again, and the trial is a question of ours, not an event.

A shard that finds itself fenced, or the log not as it left it, ends its process. It
never takes over again by itself: its successor reads from the assignment what it owns.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from ray_tracking import failpoints
from ray_tracking.actors.control import ControlWatch
from ray_tracking.actors.upkeep import Upkeep
from ray_tracking.clock import Clock
from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.admit import AdmissionPolicy, Partition
from ray_tracking.pipeline.breaker import Breaker, BreakerPolicy, BreakerState
from ray_tracking.pipeline.control import Control
from ray_tracking.pipeline.gather import (
    Outcome,
    Verdict,
    pack_outcomes,
    unpack,
    unpack_chunk,
)
from ray_tracking.pipeline.level import DrainRate
from ray_tracking.pipeline.places import AWAY, RETRY_AFTER_S, Append, Offered, State, outcomes_of
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.log import Appended, EventLog
from ray_tracking.stores.rows import PositionReader
from ray_tracking.tasks import wanted

_SHUT = Outcome(Verdict.FULL, retry_after_s=RETRY_AFTER_S)
_REPEAT_AFTER_MS = 200
_LOG_ANSWERS_WITHIN_S = 2.0
#: An append that takes longer keeps nobody else waiting.
_SLOW_APPEND_MS = 1000
_BREAKER = BreakerPolicy(min_calls=3, slow_call_ms=_SLOW_APPEND_MS, longest_open_ms=4000)

#: Asks a partition for places for the submissions that stand at these places of a call.
_Offer = Callable[[Partition, list[int], Outcome | None], Offered]

log = structlog.get_logger("ray_tracking.shard")


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard needs to know. Travels to its process."""

    name: str
    redis_url: str = field(repr=False)
    redis_prefix: str
    database_url: str = field(repr=False)
    database_schema: str
    policy: AdmissionPolicy
    max_buffered_events: int
    max_log_bytes: int
    clock_dir: Path | None = None
    failpoints_dir: Path | None = None
    log_level: str = "info"


class Shard:
    """
    A plain class; :mod:`ray_tracking.actors.parts` makes it an actor.

    Args:
        config: Who it is, and its rules.
        die: Ends this process. Called when the shard is fenced.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, config: ShardConfig, die: Callable[[str], None], clock: Clock) -> None:
        self._config = config
        self._die = die
        self._clock = clock
        self._log = EventLog(config.redis_url, config.redis_prefix, _LOG_ANSWERS_WITHIN_S)
        self._positions = PositionReader(config.database_url, config.database_schema, config.name)
        self._upkeep = Upkeep(
            config.name, self._log, self._positions, self._clock, config.max_log_bytes
        )
        self._policy = config.policy
        self._control = ControlWatch(config.name, self._log, self._go_by)
        self._breaker = Breaker(_BREAKER)
        #: When the append that is on its way was sent.
        self._sent_ms: int | None = None
        self._room = Room(config.max_buffered_events)
        self._drain_rate = DrainRate()
        self._partitions: dict[int, Partition] = {}
        self._waiting: dict[Append, asyncio.Future[None]] = {}
        self._dirty = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._starting: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

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
            self._upkeep.spools.unreadable()
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
            asyncio.create_task(self._upkeep.run(self._partitions.values())),
            asyncio.create_task(self._control.run()),
        ]

    async def _take_over(self) -> None:
        assignment = await self._log.assignment()
        if assignment is None:
            # Emptied, or replaced: the supervisor says again who owns what.
            raise LogUnavailable("the log does not say who owns which partitions")
        await self._control.look()
        shards = assignment.shards
        owned = shards.get(self._config.name, [])
        floor_ms = await self._upkeep.begin([n for owned in shards.values() for n in owned])
        stored = await self._positions.read()
        totals = await self._positions.totals() or {}
        now_ms = self._clock()
        policy = self._policy
        lanes = range(len(LANES))
        # All at once, so that their markers share fsyncs; and all to their end, so that
        # a start that is tried again does not meet its own.
        taken = await asyncio.gather(
            *[
                self._log.take_over(
                    number,
                    stored_epoch=max(stored[number, lane].epoch for lane in lanes) if stored else 0,
                    stored_totals=[totals.get((number, lane), 0) for lane in lanes],
                    now_s=now_ms / 1000,
                    since_ms=min(now_ms, floor_ms) - policy.longest_ms,
                )
                for number in owned
            ],
            return_exceptions=True,
        )
        failed = [error for error in taken if isinstance(error, BaseException)]
        if failed:
            raise gravest(failed)
        for number, takeover in zip(owned, taken, strict=True):
            assert not isinstance(takeover, BaseException)
            partition = Partition(number, policy, epoch=takeover.epoch, totals=takeover.totals)
            for lane, entries in enumerate(takeover.tail):
                for entry in entries:
                    partition.restore(entry, lane, now_ms=now_ms)
            self._partitions[number] = partition

    def _go_by(self, control: Control) -> None:
        """Other rules from now on."""
        self._policy = control.admission
        self._upkeep.max_log_bytes = control.max_log_bytes
        for partition in self._partitions.values():
            partition.change(control.admission)

    # -- events --------------------------------------------------------------

    async def submit(self, blob: bytes) -> bytes:
        """
        Admit the submissions of one blob, and answer when each is decided.

        Takes :func:`~ray_tracking.pipeline.gather.pack`'s form and answers
        :func:`~ray_tracking.pipeline.gather.pack_outcomes`'s.
        """
        failpoints.reach("shard.submitted", blob)
        submissions = unpack(blob)
        now_ms = self._clock()

        def offer(partition: Partition, places: list[int], shut: Outcome | None) -> Offered:
            events = [submissions[place] for place in places]
            return partition.offer_all(events, now_ms=now_ms, shut=shut)

        return pack_outcomes(await self._admit(submissions, len(blob), offer))

    async def drain_spool(self, blob: bytes) -> bytes:
        """
        Take a chunk of a spool over into the log; answers as :meth:`submit` does.

        Takes :func:`~ray_tracking.pipeline.gather.pack_chunk`'s form. A chunk that came
        before, whole or in part, is recognised: nothing of it is appended twice.
        """
        failpoints.reach("drain.submitted", blob)
        chunk = unpack_chunk(blob)
        submissions = unpack(chunk.blob)
        offsets = array("Q", chunk.offsets)
        stretch = (chunk.spool_id, chunk.start, chunk.end)
        now_ms = self._clock()

        def offer(partition: Partition, places: list[int], shut: Outcome | None) -> Offered:
            # Until it is reported, nothing is kept for its events to be compared with.
            reported = chunk.spool_id in self._upkeep.spools.reports
            shut = shut or (None if reported else _SHUT)
            return [
                partition.offer_spooled(
                    submissions[place], stretch, offsets[place], now_ms=now_ms, shut=shut
                )
                for place in places
            ]

        return pack_outcomes(await self._admit(submissions, len(blob), offer))

    async def _admit(
        self, submissions: Sequence[Submission], size_bytes: int, offer: _Offer
    ) -> list[Outcome]:
        """Decide on each, and wait for those that got a place."""
        try:
            await self.start()
        except LogUnavailable:
            return [AWAY] * len(submissions)
        size = len(submissions), size_bytes
        if self._draining or not self._room.take(*size):
            wait_s = self._drain_rate.wait_s(self._room.events, self._clock())
            return [Outcome(Verdict.FULL, retry_after_s=wait_s)] * len(submissions)
        try:
            shut = self._shut()
            # In a call, what has priority comes first; so each keeps its place in its campaign.
            streams: dict[tuple[int, int], list[int]] = defaultdict(list)
            for place, submission in enumerate(submissions):
                streams[submission.partition, submission.lane].append(place)
            offered: list[tuple[list[int], Offered]] = []
            for (number, _), places in streams.items():
                partition = self._partitions.get(number)
                if partition is None:
                    offered.append((places, [_SHUT] * len(places)))
                else:
                    blocked = number in self._upkeep.blocked
                    offered.append((places, offer(partition, places, _SHUT if blocked else shut)))
            found = [one for _, its in offered for one in its if not isinstance(one, Outcome)]
            await self._settled({one.append for one in found})
            outcomes = [_SHUT] * len(submissions)
            for places, its in offered:
                for place, outcome in zip(places, outcomes_of(its), strict=True):
                    outcomes[place] = outcome
            if any(outcome.verdict is not Verdict.ACCEPTED for outcome in outcomes):
                verdicts = Counter(outcome.verdict.name for outcome in outcomes)
                log.debug("decided", **verdicts, shut=shut and shut.verdict.name)
            return outcomes
        finally:
            self._room.leave(*size)

    def _shut(self) -> Outcome | None:
        """What is said to events that need a place, when there is none now."""
        slow = self._sent_ms is not None and self._clock() - self._sent_ms > _SLOW_APPEND_MS
        if slow or self._breaker.state is not BreakerState.CLOSED:
            return AWAY
        room_in_s = self._upkeep.room_in_s()
        return None if room_in_s is None else Outcome(Verdict.FULL, retry_after_s=room_in_s)

    async def _settled(self, places: set[Append]) -> None:
        """Return when none of these appends is open or on its way for the first time."""
        if not places:
            return
        loop = asyncio.get_running_loop()
        for append in places:
            self._waiting.setdefault(append, loop.create_future())
        self._idle.clear()
        self._dirty.set()
        await asyncio.gather(*[asyncio.shield(self._waiting[append]) for append in places])

    async def status(self) -> dict[str, Any]:
        """Figures for health and stats; answers only while the loop is alive."""
        partitions = self._partitions.values()
        now_ms = self._clock()
        return {
            "name": self._config.name,
            "started": bool(self._tasks),
            "partitions": sorted(self._partitions),
            "buffered": self._room.events,
            "buffered_bytes": self._room.size_bytes,
            "unclear": [p.number for p in partitions if p.unclear],
            "blocked": sorted(self._upkeep.blocked),
            "breaker": self._breaker.describe(now_ms),
            "log_bytes": self._upkeep.log_bytes,
            "log_full": self._upkeep.room_in_s() is not None,
            "spools_abandoned": self._upkeep.spools.abandoned,
            #: Events ever appended.
            "totals": {
                name: sum(p.totals[lane] for p in partitions) for lane, name in enumerate(LANES)
            },
            "dedup_ids": sum(len(p.window) for p in partitions),
            "dedup_window_ms": self._policy.window.longest_ms,
            "dedup_evicted_early": sum(p.window.evicted_early for p in partitions),
            "dedup_effective_ms": min(
                (p.window.effective_ms(now_ms) for p in partitions),
                default=self._policy.window.longest_ms,
            ),
            #: Names the rules that it goes by.
            "control": self._control.version,
        }

    # -- the append loop -----------------------------------------------------

    async def _append_loop(self) -> None:
        try:
            while wanted():
                await self._wait_for_work()
                partitions = self._partitions.values()
                repeats = [append for p in partitions for append in p.repeats()]
                closed = self._breaker.state is BreakerState.CLOSED
                if closed and not repeats and not any(p.has_waiting for p in partitions):
                    continue
                if self._breaker.allow(self._clock(), random.random()):
                    await self._call_log(repeats)
                else:
                    self._refuse_waiting()
        except Fenced as error:
            self._end(str(error))
        except Exception as error:
            # A loop that stands still would keep everybody waiting: the successor starts clean.
            log.exception("append loop failed")
            self._end(f"{type(error).__name__}: {error}")

    async def _wait_for_work(self) -> None:
        wait_ms: float | None = None
        if any(p.unclear for p in self._partitions.values()):
            wait_ms = _REPEAT_AFTER_MS
        if self._breaker.state is not BreakerState.CLOSED:
            wait_ms = max(self._breaker.wait_ms(self._clock()), 1)
        try:
            async with asyncio.timeout(None if wait_ms is None else wait_ms / 1000):
                await self._dirty.wait()
        except TimeoutError:
            pass
        self._dirty.clear()

    async def _call_log(self, repeats: list[Append]) -> None:
        """One round trip: what is unclear, what is new, or else a question."""
        began_ms = self._sent_ms = self._clock()
        try:
            ok = await self._append(repeats)
        finally:
            self._sent_ms = None
        now_ms = self._clock()
        took_ms = now_ms - began_ms
        changed = self._breaker.record(ok, took_ms=took_ms, now_ms=now_ms, random=random.random())
        if changed in (BreakerState.OPEN, BreakerState.CLOSED):
            log.warning(
                f"circuit_{'opened' if changed is BreakerState.OPEN else changed}", name="redis"
            )
        if changed is BreakerState.OPEN or (not ok and took_ms > _SLOW_APPEND_MS):
            # Who has waited for one time-out does not wait for the next.
            self._refuse_waiting()
        if any(append.state is State.OPEN for append in self._waiting):
            self._dirty.set()

    async def _append(self, repeats: list[Append]) -> bool:
        """Whether the log did its part."""
        closed = self._breaker.state is BreakerState.CLOSED
        if not (closed and self._log.appender_connected) and not await self._verify():
            self._refuse_waiting()
            return False
        sent_ms = now_ms = self._clock()
        fresh = [append for p in self._partitions.values() for append in p.take(now_ms=now_ms)]
        if not (appends := repeats + fresh):
            return True
        failpoints.reach("shard.sending")
        results = await self._log.append(appends)
        failpoints.reach("shard.sent")
        now_ms = self._clock()
        for append, result in zip(appends, results, strict=True):
            self._settle(self._partitions[append.partition], append, result, now_ms)
        self._answer_settled()
        log.debug("appended", fresh=len(fresh), repeats=len(repeats), took_ms=now_ms - sent_ms)
        failpoints.reach("shard.committed")
        return all(result is Appended.OK for result in results)

    def _refuse_waiting(self) -> None:
        """Let go of what was not sent: it is definitely not in the log."""
        for partition in self._partitions.values():
            partition.refuse_waiting()
        self._answer_settled()

    def _settle(self, partition: Partition, append: Append, result: Appended, now_ms: int) -> None:
        if result is Appended.OK:
            partition.committed(append, now_ms=now_ms)
            self._drain_rate.note(len(append.submissions), now_ms)
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

    def _answer_settled(self) -> None:
        for append in [a for a in self._waiting if a.state not in (State.OPEN, State.SENT)]:
            self._waiting.pop(append).set_result(None)
        if not self._waiting:
            self._idle.set()

    async def _verify(self) -> bool:
        """
        After a lost connection: is the log still as we left it?

        Raises:
            Fenced: If it is not: flushed, replaced, set back, or somebody else's.
        """
        try:
            lasts = await self._log.last_ids(self._partitions)
        except LogUnavailable:
            return False
        for (number, lane), last in lasts.items():
            partition = self._partitions[number]
            unclear = [append.id for append in partition.repeats() if append.lane == lane]
            if last not in [partition.last_id(lane), *unclear]:
                raise Fenced(
                    f"partition {number} ends at {last}, we left it at {partition.last_id(lane)}"
                )
        return True

    def _end(self, reason: str) -> None:
        log.error("shard ends", shard=self._config.name, reason=reason)
        for future in self._waiting.values():
            future.set_result(None)
        self._waiting.clear()
        self._idle.set()
        self._die(reason)


def gravest(errors: Sequence[BaseException]) -> BaseException:
    """Of what went wrong at once: whoever has lost one partition takes over no other again."""
    return next((error for error in errors if isinstance(error, Fenced)), errors[0])
