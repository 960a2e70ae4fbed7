"""
The Python interface to the running application, from any process on its Ray.

::

    processor = TrackingEventProcessor()
    await processor.initialize()
    result = await processor.process_event(data, EventType.EMAIL_OPEN)
    processor.on("backpressure_changed", print)
    await processor.shutdown()

Whatever it sends is answered by the same code as what comes over HTTP. Ray is imported by
:meth:`~TrackingEventProcessor.initialize`, not before.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ray_tracking.api.answers import DeadLetter, HealthStatus, ProcessingStats
from ray_tracking.api.attempts import Request, Response
from ray_tracking.api.handlers import Handler, Handlers
from ray_tracking.api.methods import AsyncMethods, patience
from ray_tracking.errors import NotInitialized, Unreachable
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.broadcast import BROADCASTED, Cursor, Frame, Hear, Polled

if TYPE_CHECKING:
    from ray_tracking.actors.attach import Attached

__all__ = ["EVENTS", "TrackingEventProcessor"]

#: What handlers can be told of.
EVENTS = (
    "initialized", "shutdown", BROADCASTED, "backpressure_changed", "processing_mode_changed",
    "health_check", "metrics_collected", "circuit_opened", "circuit_closed", "dead_letter",
)  # fmt: skip
#: Of the time for which an event is known again; the rest is for the last attempt.
_SHARE_OF_WINDOW = 0.8
_HANDLERS_FINISH_WITHIN_S = 5.0
_HEAR_WITHIN_S = 15.0
#: Between two questions: what is told meanwhile comes together.
_PAUSE_S = 0.02
_BACKOFF = Backoff(first_s=0.05, longest_s=1.0)

log = logging.getLogger("ray_tracking.processor")

#: What a handler gets, where that is not what stands in the frame.
_TYPED: dict[str, type[Any]] = {
    "health_check": HealthStatus,
    "metrics_collected": ProcessingStats,
    "dead_letter": DeadLetter,
}


class TrackingEventProcessor(AsyncMethods):
    """
    Attaches to the running application: from a plain script, a Ray driver, actor or task, or
    another Serve deployment. It belongs to the event loop in which it was initialized.

    Besides what its methods say, each of them that asks the service raises
    :class:`~ray_tracking.errors.NotInitialized` before :meth:`initialize` and after
    :meth:`shutdown`.

    Args:
        application: Its name in Serve, where there are several of ours on one Ray.
        ray_address: Of the Ray to join, if this process has joined none; else ``RAY_ADDRESS``,
            or the Ray that runs on this machine.
        retry_for_s: How long a call is tried again, within the service's idempotency window.
        validation_rules: Dotted paths of the service's own rules, for :meth:`validate_event`.
    """

    def __init__(
        self,
        *,
        application: str | None = None,
        ray_address: str | None = None,
        retry_for_s: float = 30.0,
        validation_rules: Sequence[str] = (),
    ) -> None:
        super().__init__(retry_for_s, validation_rules)
        self._application = application
        self._ray_address = ray_address
        self._retry_for_s = retry_for_s
        self._handlers = Handlers(EVENTS)
        self._way: Attached | None = None
        self._has_joined = False
        self._listening: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._accepts = False
        self._cursor = Cursor(0, 0)
        self._asides: set[asyncio.Task[None]] = set()

    # -- life --------------------------------------------------------------------

    async def initialize(self) -> None:
        """
        Join Ray if this process has not, and find the application.

        Handlers that are there already hear of everything from now on.

        Raises:
            Unreachable: There is no Ray, or no application of ours on it, or it does not answer.
        """
        async with self._beginning:
            if self._way is None:
                await self._begin()

    async def _begin(self) -> None:
        from ray_tracking.actors import attach

        self._has_joined = attach.join(self._ray_address)
        way = attach.Attached(self._application)
        try:
            await way.open()
        except BaseException:
            await way.close()
            self._leave()
            raise
        self._way = way
        known_for_s = way.known_for_ms / 1000
        self._patience = patience(min(self._retry_for_s, _SHARE_OF_WINDOW * known_for_s))
        if self._handlers.wants(*EVENTS):
            await self._listen()
        self._accepts = True
        self._handlers.emit("initialized")

    async def shutdown(self) -> None:
        """
        Return when all that was accepted is answered and the handlers have heard all; from the
        beginning on, nothing more is accepted. May be called again.
        """
        self._accepts = False
        await self._all_answered()
        way, self._way = self._way, None
        if way is None:
            return
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        await way.close()
        self._handlers.emit("shutdown")
        await self._handlers.finish(_HANDLERS_FINISH_WITHIN_S)
        self._leave()

    def _leave(self) -> None:
        if self._has_joined:
            from ray_tracking.actors import attach

            self._has_joined = False
            attach.leave()

    def _check(self) -> None:
        if not self._accepts:
            raise NotInitialized("await initialize() first; nothing is accepted after shutdown()")

    async def _send(self, request: Request) -> Response:
        if self._way is None:
            raise Unreachable("the processor was shut down")
        return await self._way.send(request)

    # -- events ------------------------------------------------------------------

    def on(self, event: str, handler: Handler) -> None:
        """
        Have a handler called for every such event, whichever process caused it.

        A coroutine function runs in the event loop, any other in a thread. One that fails is
        logged once and called again; one that is too slow misses the oldest of what waits.

        Args:
            event: One of :data:`EVENTS`.
            handler: Gets the payload; nothing for ``initialized`` and ``shutdown``.
        """
        self._handlers.on(event, handler)
        self._begin_to_listen(event)

    def once(self, event: str, handler: Handler) -> None:
        """As :meth:`on`, for the next such event only."""
        self._handlers.on(event, handler, once=True)
        self._begin_to_listen(event)

    def off(self, event: str, handler: Handler) -> None:
        """Call this handler no more."""
        self._handlers.off(event, handler)

    def _begin_to_listen(self, event: str) -> None:
        if self._way is None:
            return
        if self._listening is None or event == BROADCASTED:
            task = asyncio.create_task(self._listen())
            self._asides.add(task)
            task.add_done_callback(self._asides.discard)

    async def _listen(self) -> None:
        """Hear of what is told from now on."""
        try:
            now = await self._hear(Cursor(0, 0))
        except Exception as error:
            log.debug("nothing heard yet: %r", error)
            now = None
        if self._listening is None and self._way is not None:
            if now is not None:
                self._cursor = Cursor(now.epoch, now.start)
            self._listening = asyncio.create_task(self._listen_loop())

    async def _hear(self, cursor: Cursor) -> Polled:
        assert self._way is not None
        async with asyncio.timeout(_HEAR_WITHIN_S):
            return await self._way.hear(Hear(*cursor, self._handlers.wants(BROADCASTED)))

    async def _listen_loop(self) -> None:
        attempt = 0
        while True:
            try:
                polled = await self._hear(self._cursor)
            except Exception as error:
                # Of Ray's too: it goes on listening as long as somebody wants to hear.
                log.debug("broadcaster not reached: %r", error)
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
                continue
            attempt = 0
            if polled.epoch == self._cursor.epoch and polled.start > self._cursor.offset:
                log.warning("too slow: %d messages missed", polled.start - self._cursor.offset)
            for frame in polled.frames:
                self._tell(frame)
                await asyncio.sleep(0)  # a handler takes what is there before more comes
            self._cursor = Cursor(polled.epoch, polled.start + len(polled.frames))
            await asyncio.sleep(_PAUSE_S)

    def _tell(self, frame: Frame) -> None:
        name = frame.name
        if name not in EVENTS or not self._handlers.wants(name):
            return
        data = orjson.loads(frame.data)
        if name == BROADCASTED:
            for campaign_id, event_type, event_id in data:
                payload = {
                    "campaignId": campaign_id, "eventType": event_type, "eventId": event_id,
                }  # fmt: skip
                self._handlers.emit(name, payload)
        elif data is None:
            self._handlers.emit(name)
        elif name in _TYPED:
            self._handlers.emit(name, msgspec.convert(data, _TYPED[name]))
        else:
            self._handlers.emit(name, data)
