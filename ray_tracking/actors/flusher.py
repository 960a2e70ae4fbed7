"""
Gets flushes into Postgres, whatever it takes.

What is refused is asked again, at growing distances, and while Postgres is not well it is
left alone for a moment: the log keeps what waits. Only a row that fails alone, where the
rest goes through without it, is set aside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import structlog

from ray_tracking.clock import Clock
from ray_tracking.events import LANES
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.bisect import failing
from ray_tracking.pipeline.breaker import Breaker, BreakerPolicy, BreakerState
from ray_tracking.pipeline.care import Standing
from ray_tracking.pipeline.flush import Move, Place, Refusal, Where, places
from ray_tracking.stores.failures import Failure
from ray_tracking.stores.rows import RowWriter, StoreRefused, StoreUnavailable

#: One call at a time, and each is a trial; a large flush may take its time.
BREAKER = BreakerPolicy(
    min_calls=3,
    slow_call_ms=20_000,
    first_open_ms=300,
    longest_open_ms=2000,
    permits=1,
    trials=1,
    ramp_ms=0,
)
BACKOFF = Backoff(first_s=0.1, longest_s=2.0)

log = structlog.get_logger("ray_tracking.writer")

T = TypeVar("T")


class Flusher:
    """
    Asks one :class:`RowWriter` until it has done what it was asked.

    Every call raises ``Fenced`` when another writer has taken over.

    Args:
        rows: The session.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, rows: RowWriter, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock
        self.breaker = Breaker(BREAKER)
        #: Why nothing goes through now.
        self.trouble: str | None = None

    async def take_over(self) -> dict[Where, Standing]:
        """Become the writer of the positions."""
        standings = await self._persist(self._rows.take_over)
        self.trouble = None
        return standings

    async def announce(self, where: Where, index: int) -> None:
        """Say in Postgres what is tried next."""
        await self._persist(lambda: self._rows.announce(where, index))

    async def store(
        self, moves: list[Move], known: Mapping[Place, Refusal] | None = None
    ) -> Mapping[Place, Refusal]:
        """
        Return when the moves are stored: as rows, and what cannot be one as a dead letter.

        Args:
            moves: One for a stream.
            known: Events that cannot be rows.

        Returns:
            Which became dead letters, and why.
        """
        letters = dict(known or {})
        attempt = 0
        while True:
            try:
                await self._flush(moves, letters)
                break
            except StoreRefused as refused:
                found = await self._find_refused(moves, letters, refused)
                if found:
                    letters |= found
                    continue
                # It takes several rows to fail, or it has passed: no row is at fault.
                self._complain(refused)
            letters = dict(known or {})
            await self._back_off(attempt)
            attempt += 1
        self.trouble = None
        for place, why in islice(letters.items(), 1):
            at = f"{place.where[0]}:{LANES[place.where[1]]}:{place.entry}:{place.row}"
            log.error("dead letters", events=len(letters), first=at, reason=why.reason)
        return letters

    async def probe(self, moves: list[Move], only: Sequence[Place]) -> None:
        """Try some rows of the moves, and take it back; whether they fail is not asked."""
        await self._try(moves, {}, only)

    # -- asking ------------------------------------------------------------------

    async def _flush(self, moves: list[Move], letters: Mapping[Place, Refusal]) -> None:
        """One flush, until it is certain what became of it."""
        unclear = False

        async def flush() -> None:
            nonlocal unclear
            if unclear and await self._rows.settle(moves):
                return
            unclear = False
            try:
                await self._rows.flush(moves, letters)
            except StoreUnavailable:
                unclear = True
                raise

        await self._persist(flush)

    async def _find_refused(
        self, moves: list[Move], letters: Mapping[Place, Refusal], refused: StoreRefused
    ) -> dict[Place, Refusal]:
        """The rows of a refused flush that are refused alone, where the rest goes through."""
        rows = [place for place in places(moves) if place not in letters]
        if await self._try(moves, letters, []) is not None:
            # A table of letters that refuses them, say: then every row would seem at fault.
            return {}
        # One that was alone in the flush has failed alone.
        reasons = {0: Refusal(refused.reason, refused.sqlstate)}
        search = failing(len(rows))
        answer: bool | None = None
        while True:
            try:
                span = next(search) if answer is None else search.send(answer)
            except StopIteration as end:
                return {rows[index]: reasons[index] for index in end.value}
            reason = await self._try(moves, letters, rows[span.start : span.stop])
            answer = reason is not None
            if reason is not None:
                reasons[span.start] = reason

    async def _try(
        self, moves: list[Move], letters: Mapping[Place, Refusal], only: Sequence[Place]
    ) -> Refusal | None:
        """Why Postgres refuses these rows, or None when it takes them."""
        chosen = frozenset(only)
        try:
            await self._persist(lambda: self._rows.probe(moves, letters, chosen))
        except StoreRefused as refused:
            return Refusal(refused.reason, refused.sqlstate)
        return None

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """
        Ask until there is an answer that stands.

        Raises:
            StoreRefused: When it may be the data's fault, and only then.
        """
        attempt = 0
        while True:
            await self._permission()
            began_ms = self._clock()
            try:
                answer = await ask()
            except (StoreUnavailable, StoreRefused) as error:
                if isinstance(error, StoreRefused) and error.failure is Failure.DATA:
                    self._record(True, began_ms)
                    raise
                self._complain(error)
                self._record(False, began_ms)
            else:
                self._record(True, began_ms)
                return answer
            await self._back_off(attempt)
            attempt += 1

    async def _permission(self) -> None:
        """Return when Postgres may be asked."""
        while True:
            if self.breaker.allow(self._clock(), random.random()):
                return
            await asyncio.sleep(self.breaker.wait_ms(self._clock()) / 1000)

    async def _back_off(self, attempt: int) -> None:
        await asyncio.sleep(BACKOFF.wait_s(attempt, random.random()))

    def _complain(self, error: StoreUnavailable | StoreRefused) -> None:
        self.trouble = str(error)
        needs_mending = isinstance(error, StoreRefused) and error.failure is Failure.OTHER
        (log.error if needs_mending else log.warning)("not stored yet", reason=str(error))

    def _record(self, ok: bool, began_ms: int) -> None:
        now_ms = self._clock()
        state = self.breaker.record(
            ok, took_ms=now_ms - began_ms, now_ms=now_ms, random=random.random()
        )
        if state is BreakerState.OPEN:
            log.warning("circuit_opened", name="database", reason=self.trouble)
        elif state is BreakerState.CLOSED:
            log.info("circuit_closed", name="database")
