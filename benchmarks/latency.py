"""
Single events at a steady rate: until each is acknowledged, and from then until it is a row.

Open loop, so an answer's time counts from when its request was due. Rows are counted, not
looked up: the first event that was acknowledged is taken for the first row, the second for
the second, and so on. They are counted every two milliseconds, which is in these figures.

Beside it stands how the batching has followed the rate: what the service says of itself at
the end of the load, and how many rows came at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from benchmarks import steady
from benchmarks.answers import percentile
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.service import Service

_RATES = (500, 1000, 2000)
_COUNT_EVERY_S = 0.002
_DRAIN_S = 60
_ROWS = "SELECT sum(rows_total) FROM log_positions"

FIGURES = tuple(
    Figure(f"{rate}/s: {what}", unit)
    for rate in _RATES
    for what, unit in (
        ("acknowledged, p50", "ms"),
        ("acknowledged, p99", "ms"),
        ("then a row, p50", "ms"),
        ("then a row, p99", "ms"),
        ("not acknowledged", "events"),
        ("linger", "ms"),
        ("flush, at most", "events"),
        ("rows at a time", "rows"),
    )
)

#: How many rows there were, and when, each time that there were more.
Counts = list[tuple[int, float]]


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own, in mode REALTIME."""
    found: dict[str, float] = {}
    async with Service({"processing_mode": "realtime"}) as service:
        first = 1
        for rate in (_RATES[0], *_RATES):  # the first time is to warm up
            order = steady.Order(service.port, rate=rate, seconds=2 * plan.seconds, first=first)
            first += round(2 * plan.seconds * rate) + rate
            found |= await _measure(service, order)
    return [found]


async def _measure(service: Service, order: steady.Order) -> dict[str, float]:
    async with _counting(service) as counts:
        before = counts[0][0]
        async with steady.load(order) as load:
            await load.finish()
        metrics = await service.metrics()
        await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered"))
    taken = [answer for answer in load.answers if answer.acknowledged]
    told_s = sorted(answer.due_s + answer.took_s for answer in taken)
    totals = [total - before for total, _ in counts]
    rows_ms = [
        max(0.0, counts[bisect_left(totals, number)][1] - at_s) * 1000
        for number, at_s in enumerate(told_s, start=1)
    ]
    name = f"{order.rate}/s"
    return {
        f"{name}: acknowledged, p50": percentile((a.took_s for a in taken), 0.50) * 1000,
        f"{name}: acknowledged, p99": percentile((a.took_s for a in taken), 0.99) * 1000,
        f"{name}: then a row, p50": percentile(rows_ms, 0.50),
        f"{name}: then a row, p99": percentile(rows_ms, 0.99),
        f"{name}: not acknowledged": len(load.answers) - len(taken),
        f"{name}: linger": metrics.get("ray_tracking_linger_seconds", math.nan) * 1000,
        f"{name}: flush, at most": metrics.get("ray_tracking_flush_events", math.nan),
        f"{name}: rows at a time": (totals[-1] - totals[0]) / (len(totals) - 1),
    }


@asynccontextmanager
async def _counting(service: Service) -> AsyncIterator[Counts]:
    """Counts rows, from before this is entered until it is left and once more."""
    database = await asyncpg.connect(service.database_url)
    counts: Counts = []

    async def look() -> None:
        total = int(await database.fetchval(_ROWS))
        if not counts or total > counts[-1][0]:
            counts.append((total, time.perf_counter()))

    async def count() -> None:
        while True:
            await look()
            await asyncio.sleep(_COUNT_EVERY_S)

    await look()
    task = asyncio.create_task(count())
    try:
        yield counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await database.close()
