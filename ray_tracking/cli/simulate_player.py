"""
Plays a plan of events against a running service, on time.

Open loop: an event is due when the plan says so, however slowly the service answers,
so its latency counts from then. What is refused for now (429, 503) or gets no answer
is sent again with the same ``eventId``, when ``Retry-After`` says so, until it is too
late for the service to recognise it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial

import aiohttp

from ray_tracking.cli.simulate_sender import AccessRefused, Sender
from ray_tracking.cli.simulate_tally import Tally
from ray_tracking.sources.simulation import Planned

#: More than this many unanswered requests, and the next one waits.
_MAX_IN_FLIGHT = 5000
#: A batch that is not full leaves when its first event has waited so long.
_BATCH_WAITS_S = 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
#: At the end, what is unanswered has so long.
_GRACE_S = 5.0


class Player:
    """
    Args:
        sender: What sends.
        tally: Where everything is counted.
        retry_for_s: How long after it was due an event may still be sent; 0 for one try.
        batch_size: Events in a batch.
    """

    def __init__(
        self, sender: Sender, tally: Tally, *, retry_for_s: float, batch_size: int
    ) -> None:
        self._sender = sender
        self._tally = tally
        self._retry_for_s = retry_for_s
        self._batch_size = batch_size
        self._batch: list[Planned] = []
        self._batch_since_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._refused: AccessRefused | None = None

    def stop(self) -> None:
        """Start nothing more, and repeat nothing more."""
        self._stop.set()

    async def play(self, plan: Iterable[Planned], rate_per_s: float, until_s: float) -> float:
        """
        Play a plan to its end, or until stopped; returns when the last event was started.

        Args:
            plan: What is due, in this order.
            rate_per_s: How often something is due.
            until_s: Nothing is started later than this, on the monotonic clock.

        Raises:
            AccessRefused: On the first 401 or 403.
        """
        started_s = time.monotonic()
        for place, planned in enumerate(plan):
            due_s = started_s + place / rate_per_s
            if not await self._wait_until(due_s) or time.monotonic() > until_s:
                break
            self._begin(planned, due_s)
            if len(self._tasks) >= _MAX_IN_FLIGHT:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            elif place % 50 == 0:
                await asyncio.sleep(0)
        ended_s = time.monotonic()
        self._send_batch()
        await self._finish()
        return ended_s

    async def _wait_until(self, due_s: float) -> bool:
        """Whether to go on."""
        # Not the loop's clock: uvloop's has a resolution of a millisecond.
        if (left_s := due_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._stop.wait()
        return not self._stop.is_set()

    async def _finish(self) -> None:
        while self._tasks and not self._stop.is_set():
            await asyncio.wait(self._tasks, timeout=0.25)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()
        if self._refused:
            raise self._refused

    def _begin(self, planned: Planned, due_s: float) -> None:
        self._tally.started[planned.event_type, planned.via] += 1
        if planned.via == "batch":
            if not self._batch:
                self._batch_since_s = due_s
            self._batch.append(planned)
        elif planned.via == "events":
            self._start(due_s, [planned], partial(self._sender.single, planned))
        else:
            self._start(due_s, [planned], partial(self._sender.hit, planned))
        full = len(self._batch) >= self._batch_size
        if full or (self._batch and due_s - self._batch_since_s > _BATCH_WAITS_S):
            self._send_batch()

    def _send_batch(self) -> None:
        items, self._batch = self._batch, []
        if items:
            now_s = time.monotonic()
            self._start(now_s, items, partial(self._sender.batch, items))

    def _start(
        self,
        due_s: float,
        events: list[Planned],
        send: Callable[[float], Awaitable[float | None]],
    ) -> None:
        task = asyncio.create_task(self._until_settled(due_s, events, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_settled(
        self,
        due_s: float,
        events: list[Planned],
        send: Callable[[float], Awaitable[float | None]],
    ) -> None:
        """Try, and try again while it makes sense; ``events`` are those still open."""
        begun_s, pause_s = due_s, _FIRST_PAUSE_S
        while True:
            try:
                wait_s = await send(begun_s)
            except AccessRefused as refused:
                self._refused = refused
                self.stop()
                return
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self._tally.failed += len(events)
                self._tally.because(f"{type(error).__name__}: {error}".rstrip(": "))
                wait_s, pause_s = pause_s, min(pause_s * 2, _LONGEST_PAUSE_S)
            if wait_s is None:
                return
            if self._stop.is_set() or time.monotonic() + wait_s > due_s + self._retry_for_s:
                self._tally.given_up += len(events)
                return
            await self._wait_until(time.monotonic() + wait_s)
            begun_s = time.monotonic()
