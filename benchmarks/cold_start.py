"""
From the start of ``ray-tracking run`` to the first event that is acknowledged.

With no data yet, when it makes a database first, and again on the same data. The program's
files have been read before, so the disk's part is small. An event is offered every 50 ms.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from benchmarks.bodies import event
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.service import Service
from ray_tracking.pipeline.rows import iso_utc

_EVERY_S = 0.05
_ASK_S = aiohttp.ClientTimeout(total=2)

FIGURES = (
    Figure("no data yet: first event acknowledged", "s"),
    Figure("data is there: first event acknowledged", "s"),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure each as often as there are runs."""
    found = []
    for number in range(plan.runs):
        with tempfile.TemporaryDirectory(prefix="ray_tracking_bench_") as folder:
            data_dir = Path(folder) / "data"
            values = [await _start(data_dir, 2 * number + again) for again in (0, 1)]
            found.append(dict(zip((figure.name for figure in FIGURES), values, strict=True)))
    return found


async def _start(data_dir: Path, number: int) -> float:
    service = Service(data_dir=data_dir)
    offering = asyncio.create_task(_offer(service, number))
    try:
        async with service:
            return await offering - service.started_s
    finally:
        offering.cancel()


async def _offer(service: Service, number: int) -> float:
    """When the event was acknowledged."""
    async with aiohttp.ClientSession(timeout=_ASK_S) as session:
        while True:
            data = event(number, iso_utc(datetime.now(UTC)))
            body = {"eventType": "EMAIL_OPEN", "eventData": data}
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(f"{service.url}/events", json=body) as answer:
                    if answer.status == 202:
                        return time.perf_counter()
            await asyncio.sleep(_EVERY_S)
