#!/usr/bin/env python3
"""
A pixel service of your own, for mails whose pixels point at your host.

    <img src="https://you.example/o/CAMPAIGN/LEAD/MAIL.gif" width="1" height="1" alt="">

Ids in the open can be guessed, and then anybody can open anybody's mail; the service's own
pixels (`POST /tracking-links`) hide and sign them. This is for links that are out already.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from aiohttp import web

from ray_tracking import AsyncTrackingClient, EventType, Unreachable

GIF = base64.b64decode("R0lGODlhAQABAJAAAP8AAAAAACH5BAUQAAAALAAAAAABAAEAAAICBAEAOw==")
HEADERS = {
    # Image proxies keep what they may, and then nobody hears of the second time.
    "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
}
#: A mail is waiting to be shown. The event goes on without it.
ANSWER_WITHIN_S = 0.05
CLIENT = web.AppKey("client", AsyncTrackingClient)
SENDING = web.AppKey("sending", set[asyncio.Task[None]])


async def record(client: AsyncTrackingClient, request: web.Request) -> None:
    """Have the open stored."""
    opened = {
        "campaign_id": request.match_info["campaign"],
        "lead_id": request.match_info["lead"],
        "email_id": request.match_info["mail"],
        # Without an event_id: a client that fetches the image twice has opened the mail once.
        "timestamp": datetime.now(UTC),
        "ip_address": request.remote,
        "user_agent": request.headers.get("User-Agent"),
    }
    try:
        result = await client.process_event(opened, EventType.EMAIL_OPEN)
    except Unreachable as error:
        print("not recorded:", error, flush=True)
        return
    if not result.success:
        print("not recorded:", result.error, result.details, flush=True)


async def pixel(request: web.Request) -> web.Response:
    """Answer the image, whatever becomes of the event."""
    if request.method == "GET":  # a scanner asks with HEAD
        sending = asyncio.create_task(record(request.app[CLIENT], request))
        request.app[SENDING].add(sending)
        sending.add_done_callback(request.app[SENDING].discard)
        await asyncio.wait([sending], timeout=ANSWER_WITHIN_S)
    return web.Response(body=GIF, content_type="image/gif", headers=HEADERS)


def build(url: str, api_key: str | None) -> web.Application:
    """The web application."""

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        app[CLIENT] = AsyncTrackingClient(url, api_key)
        app[SENDING] = set()
        yield
        await asyncio.gather(*app[SENDING])
        await app[CLIENT].close()

    app = web.Application()
    app.cleanup_ctx.append(with_client)
    app.router.add_get("/o/{campaign}/{lead}/{mail}.gif", pixel)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pixel service in front of ray-tracking.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope ingest")
    parser.add_argument("--port", type=int, default=8081)
    given = parser.parse_args()
    web.run_app(build(given.url, given.api_key), host="127.0.0.1", port=given.port)
