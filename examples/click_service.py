#!/usr/bin/env python3
"""
A click service of your own: short links that lead on and are counted.

    python examples/click_service.py links.json

where `links.json` says where each leads: `{"offer": "https://shop.example/offer?a=1"}`. The
link in a mail is `https://you.example/l/offer?c=CAMPAIGN&l=LEAD&m=MAIL`. Where it leads never
comes from the link itself: that would lend your name to every phisher.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from yarl import URL

from ray_tracking import AsyncTrackingClient, EventType, Unreachable

HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
#: Somebody is waiting for a page. The event goes on without them.
ANSWER_WITHIN_S = 0.05
CLIENT = web.AppKey("client", AsyncTrackingClient)
LINKS = web.AppKey("links", dict[str, str])
SENDING = web.AppKey("sending", set[asyncio.Task[None]])


async def record(client: AsyncTrackingClient, request: web.Request, target: str) -> None:
    """Have the click stored."""
    clicked = {
        "campaign_id": request.query.get("c"),
        "lead_id": request.query.get("l"),
        "email_id": request.query.get("m"),
        "link_url": target,
        "link_id": request.match_info["link"],
        "timestamp": datetime.now(UTC),
        "ip_address": request.remote,
        "user_agent": request.headers.get("User-Agent"),
    }
    try:
        result = await client.process_event(clicked, EventType.LINK_CLICK)
    except Unreachable as error:
        print("not recorded:", error, flush=True)
        return
    if not result.success:
        print("not recorded:", result.error, result.details, flush=True)


async def follow(request: web.Request) -> web.Response:
    """Lead on, whatever becomes of the event."""
    target = request.app[LINKS].get(request.match_info["link"])
    if target is None:
        raise web.HTTPNotFound(text="There is no such link.\n")
    if request.method == "GET":  # a scanner asks with HEAD
        sending = asyncio.create_task(record(request.app[CLIENT], request, target))
        request.app[SENDING].add(sending)
        sending.add_done_callback(request.app[SENDING].discard)
        await asyncio.wait([sending], timeout=ANSWER_WITHIN_S)
    # 302, not 301: a browser would remember that, and come no second time.
    raise web.HTTPFound(URL(target, encoded=True), headers=HEADERS)


def build(links: dict[str, str], url: str, api_key: str | None) -> web.Application:
    """The web application."""

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        app[CLIENT] = AsyncTrackingClient(url, api_key)
        app[SENDING] = set()
        yield
        await asyncio.gather(*app[SENDING])
        await app[CLIENT].close()

    app = web.Application()
    app[LINKS] = links
    app.cleanup_ctx.append(with_client)
    app.router.add_get("/l/{link}", follow)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A click service in front of ray-tracking.")
    parser.add_argument("links", type=Path, help="JSON: where each link leads")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of ray-tracking")
    parser.add_argument("--api-key", help="with the scope ingest")
    parser.add_argument("--port", type=int, default=8082)
    given = parser.parse_args()
    app = build(json.loads(given.links.read_text()), given.url, given.api_key)
    web.run_app(app, host="127.0.0.1", port=given.port)
