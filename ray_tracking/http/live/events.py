"""``GET /campaigns/{id}/live``: a campaign as server-sent events, where no socket can be held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ray_tracking.clock import Clock
from ray_tracking.errors import InvalidEvent
from ray_tracking.http.access import Access
from ray_tracking.http.asked import read_campaign
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.live.subscriber import Subscriber
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.outbox import Message

MEDIA_TYPE = "text/event-stream"
#: Says that the connection is alive, to proxies and to a client that wonders.
_COMMENT_EVERY_S = 15.0
_COMMENT = b": alive\n\n"
#: How long a client waits before it comes back.
_RETRY = b"retry: 1000\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    # nginx would otherwise keep it back until it has a page full.
    "X-Accel-Buffering": "no",
}


class ServerSent:
    """
    Serves streams.

    Args:
        hub: Where to subscribe.
        access: Who may.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, hub: Hub, access: Access, clock: Clock) -> None:
        self._hub = hub
        self._access = access
        self._clock = clock

    async def stream(self, request: Request) -> Response:
        """``Last-Event-ID`` is the cursor; ``?detailed=1`` shows each event."""
        self._access.require(request.scope, "read")
        try:
            campaign_id = read_campaign(request)
        except InvalidEvent as error:
            return JSONResponse(answer.invalid(error), 422)
        detailed = request.query_params.get("detailed") in ("1", "true")
        cursor = request.headers.get("last-event-id")
        return StreamingResponse(
            self._events(campaign_id, detailed, cursor), media_type=MEDIA_TYPE, headers=_HEADERS
        )

    async def _events(
        self, campaign_id: str, detailed: bool, cursor: str | None
    ) -> AsyncIterator[bytes]:
        some = asyncio.Event()

        def wake(message: Message) -> bool:
            some.set()
            return False

        # A stream has no codes to close with: it just ends, and the client comes back.
        subscriber = Subscriber(wake, lambda code, reason: some.set(), self._clock)
        self._hub.join(subscriber)
        try:
            self._hub.subscribe(subscriber, campaign_id, detailed=detailed, cursor=cursor)
            yield _RETRY
            while not subscriber.is_gone:
                try:
                    async with asyncio.timeout(_COMMENT_EVERY_S):
                        await some.wait()
                except TimeoutError:
                    yield _COMMENT
                some.clear()
                parts = []
                while subscriber.outbox:
                    parts.append(subscriber.take().server_sent)
                if parts:
                    yield b"".join(parts)
        finally:
            self._hub.leave(subscriber)
