"""
A bounce, from its request to its row: on an idle service, and beside a backlog of opens.

The backlog comes about in Postgres, where a transaction of ours holds the positions of the
normal lane while the opens go in. (A writer that is stopped by a signal would be replaced.)
Once it lets go, the writer drains at its full speed, and bounces go in beside it, one every
20 ms, until there are 500 or the backlog is gone.

A row is there when a query of another session finds it. The query is repeated every few
milliseconds; that, and what it costs, is in all of these figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg

from benchmarks.answers import percentile
from benchmarks.lab import Figure, Lab, all_accepted

_BOUNCES, _EVERY_S, _LOOK_EVERY_S = 500, 0.02, 0.003
_BATCH, _CONNECTIONS = 500, 8
_WITHIN_S = 60.0

_HOLD = "SELECT FROM log_positions WHERE log_lane = 'normal' FOR UPDATE"
_DONE = "SELECT sum(rows_total) FROM log_positions WHERE log_lane = 'normal'"
_FOUND = "SELECT client_event_id FROM events WHERE campaign_id = $1 AND received_at >= $2"

FIGURES = (
    Figure("idle: p50", "ms"),
    Figure("idle: p99", "ms"),
    Figure("backlog: p50", "ms", ("idle: p50",)),
    Figure("backlog: p99", "ms", ("idle: p99",)),
    Figure("backlog: bounces measured", "events"),
    Figure("backlog: opens before them", "events"),
    Figure("backlog: opens after them", "events"),
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    idle = await _Bounces(lab).send()
    before = int(await lab.database.fetchval(_DONE))
    async with held(lab):
        result = await lab.send(
            lab.service.port,
            "/events/batch",
            batch=_BATCH,
            events=lab.plan.backlog // 2,
            connections=_CONNECTIONS,
        )
        all_accepted(result, "priority")
    waiting = _Bounces(lab, until_done=before + result.requests * _BATCH)
    beside = await waiting.send()
    await waiting.wait_for_backlog()
    return {
        "idle: p50": percentile(idle, 0.50),
        "idle: p99": percentile(idle, 0.99),
        "backlog: p50": percentile(beside, 0.50),
        "backlog: p99": percentile(beside, 0.99),
        "backlog: bounces measured": len(beside),
        "backlog: opens before them": waiting.opens[0],
        "backlog: opens after them": waiting.opens[-1],
    }


@asynccontextmanager
async def held(lab: Lab) -> AsyncIterator[None]:
    """Nothing of the normal lane becomes a row meanwhile."""
    holder = await asyncpg.connect(lab.service.database_url)
    try:
        async with holder.transaction():
            await holder.execute(_HOLD)
            yield
    finally:
        await holder.close()


class _Bounces:
    """
    One every 20 ms, and how long each takes.

    Args:
        lab: Where.
        until_done: When so many of the normal lane are rows, no more are sent.
    """

    def __init__(self, lab: Lab, until_done: int | None = None) -> None:
        self._lab = lab
        self._until_done = until_done
        self._campaign = f"priority-{uuid4().hex}"
        #: Opens that are no rows yet, from time to time.
        self.opens: list[int] = []
        #: Bounces that are no rows yet: when each was sent, by two clocks.
        self._sent: dict[str, tuple[float, datetime]] = {}
        self._took_ms: list[float] = []

    async def send(self) -> list[float]:
        """Return when each is a row; in how many milliseconds."""
        looking = asyncio.create_task(self._look())
        try:
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as requests:
                next_s = time.perf_counter()
                for number in range(_BOUNCES):
                    if number % 10 == 0 and not await self._count_opens():
                        break
                    await asyncio.sleep(next_s - time.perf_counter())
                    requests.create_task(self._post(session, f"{self._campaign}-{number}"))
                    next_s += _EVERY_S
            await self._count_opens()
            deadline_s = time.perf_counter() + _WITHIN_S
            while self._sent:
                if time.perf_counter() > deadline_s:
                    raise SystemExit(f"{len(self._sent)} bounces never became rows")
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            looking.cancel()
        return self._took_ms

    async def wait_for_backlog(self) -> None:
        """Return when it is gone."""
        deadline_s = time.perf_counter() + 2 * _WITHIN_S
        while await self._count_opens():
            if time.perf_counter() > deadline_s:
                raise SystemExit(f"{self.opens[-1]:,} opens still wait")
            await asyncio.sleep(0.1)

    async def _post(self, session: aiohttp.ClientSession, event_id: str) -> None:
        data: dict[str, Any] = {
            "campaignId": self._campaign,
            "leadId": event_id,
            "emailId": event_id,
            "eventId": event_id,
            "timestamp": datetime.now(UTC).isoformat(),
            "bounceType": "hard",
        }
        body = {"eventType": "EMAIL_BOUNCE", "eventData": data}
        self._sent[event_id] = time.perf_counter(), datetime.now(UTC)
        async with session.post(f"{self._lab.service.url}/events", json=body) as answer:
            if answer.status != 202:
                raise SystemExit(f"a bounce was not accepted: {await answer.text()}")

    async def _look(self) -> None:
        database = await asyncpg.connect(self._lab.service.database_url)
        try:
            while True:
                if self._sent:
                    # The service's clock cuts off what is less than a millisecond.
                    since = next(iter(self._sent.values()))[1] - timedelta(seconds=1)
                    found = await database.fetch(_FOUND, self._campaign, since)
                    now_s = time.perf_counter()
                    for (event_id,) in found:
                        if sent := self._sent.pop(event_id, None):
                            self._took_ms.append((now_s - sent[0]) * 1000)
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            await database.close()

    async def _count_opens(self) -> bool:
        """Whether some still wait, if that matters."""
        if self._until_done is None:
            return True
        done = int(await self._lab.database.fetchval(_DONE))
        self.opens.append(self._until_done - done)
        return self.opens[-1] > 0
