"""
The page while one campaign's events come in at 10,000 a second: how long its frames take.

Chromium draws without a graphics card here, on the cores that the service and the load
use as well, so these figures are worse than anybody's who looks at the page from elsewhere.
Needs ``make browser`` and a Chromium.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from typing import Any

import aiohttp
import orjson

from benchmarks.answers import percentile
from benchmarks.bodies import event
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.service import Service
from tests.browser.chromium import FLAGS, binary
from tests.browser.look import FRAMES

_CAMPAIGN = "bench-page"
_RATE, _BATCH = 10_000, 500
_TYPES = ("EMAIL_OPEN", "EMAIL_SENT", "EMAIL_DELIVERED", "EMAIL_OPEN", "EMAIL_REPLY")
_WARM_UP_S = 3.0

FIGURES = (
    Figure("events acknowledged", "events/s"),
    Figure("frame: p50", "ms"),
    Figure("frame: p99", "ms"),
    Figure("frame: longest", "ms"),
    Figure("frames over 50 ms", "%"),
    Figure("main thread at work", "%"),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    executable = binary()
    if executable is None:
        raise SystemExit("there is no Chromium: apt-get install chromium")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        raise SystemExit("playwright is not there: make browser") from None
    sent: Counter[str] = Counter()
    async with Service() as service, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1440, "height": 1000})
        load = asyncio.create_task(_send(service.url, sent))
        await page.goto(f"{service.url}/dashboard#/campaign/{_CAMPAIGN}?bucket=live")
        await page.wait_for_selector(".feed .skipped:has-text('more')")
        await asyncio.sleep(_WARM_UP_S)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        before_s, started_s = await _busy_s(session), time.monotonic()
        sent.clear()
        frames: list[float] = await page.evaluate(FRAMES, 2 * plan.seconds)
        took_s = time.monotonic() - started_s
        busy_s, arrived = await _busy_s(session) - before_s, sent["acknowledged"]
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        await browser.close()
    return [
        {
            "events acknowledged": arrived / took_s,
            "frame: p50": percentile(frames, 0.50),
            "frame: p99": percentile(frames, 0.99),
            "frame: longest": max(frames),
            "frames over 50 ms": 100 * sum(frame > 50 for frame in frames) / len(frames),
            "main thread at work": 100 * busy_s / took_s,
        }
    ]


async def _send(url: str, sent: Counter[str]) -> None:
    """Batches at a steady rate, each when it is due, until this is cancelled."""
    started_s = time.monotonic()
    numbers = count()
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for batch in count():
            await asyncio.sleep(started_s + batch * _BATCH / _RATE - time.monotonic())
            body = orjson.dumps([_item(next(numbers)) for _ in range(_BATCH)])
            tasks.create_task(_post(session, f"{url}/events/batch", body, sent))


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, sent: Counter[str]) -> None:
    headers = {"Content-Type": "application/json"}
    async with session.post(url, data=body, headers=headers) as response:
        answer = await response.json()
        sent.update(acknowledged=answer.get("processed", 0))


def _item(number: int) -> dict[str, Any]:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = event(number, stamp) | {"campaignId": _CAMPAIGN}
    return {"eventType": _TYPES[number % len(_TYPES)], "eventData": data}


async def _busy_s(session: Any) -> float:
    """How long the page's main thread has worked up to now."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))
