"""How long a killed actor is away: from ``kill -9`` to the next acknowledged event or row."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from benchmarks import processes
from benchmarks.lab import Figure, Lab

FIGURES = (
    Figure("killed shard, until acknowledged", "ms"),
    Figure("killed writer, until a row", "ms"),
)

_CAMPAIGNS = 12
_WITHIN_S = 30


async def run(lab: Lab) -> dict[str, float]:
    """Kill one of each, and watch from outside."""
    async with aiohttp.ClientSession() as session:
        await _send_all(lab, session)
        killed_s = _kill(lab, "shard")
        await _send_all(lab, session)
        acknowledged_s = time.perf_counter()
        before = await lab.rows()
        written_from_s = _kill(lab, "writer")
        await _send_all(lab, session)
        await _wait_for_rows(lab, before)
        row_s = time.perf_counter()
    # The bench that comes next counts rows of its own.
    await lab.service.until_waiting(0, _WITHIN_S, ("in_log", "buffered"))
    return {
        "killed shard, until acknowledged": (acknowledged_s - killed_s) * 1000,
        "killed writer, until a row": (row_s - written_from_s) * 1000,
    }


async def _wait_for_rows(lab: Lab, before: int) -> None:
    deadline_s = time.perf_counter() + _WITHIN_S
    while True:
        if await lab.rows() > before or time.perf_counter() > deadline_s:
            return
        await asyncio.sleep(0.01)


def _kill(lab: Lab, kind: str) -> float:
    """Kill the first process of a kind; when it was."""
    for process in processes.find(lab.service, kind):
        process.kill()
        return time.perf_counter()
    raise SystemExit(f"there is no {kind}")


async def _send_all(lab: Lab, session: aiohttp.ClientSession) -> None:
    """One event of each of several campaigns, each until it is acknowledged."""
    async with asyncio.timeout(_WITHIN_S):
        for campaign in range(_CAMPAIGNS):
            event = {
                "eventType": "EMAIL_OPEN",
                "eventData": {
                    "campaignId": f"failover-{campaign}",
                    "leadId": f"lead-{time.perf_counter_ns()}",
                    "emailId": "mail",
                    "timestamp": "2026-11-01T09:00:00Z",
                },
            }
            while True:
                async with session.post(f"{lab.service.url}/events", json=event) as answer:
                    # One that was unclear before may be a duplicate of itself.
                    if answer.status in (200, 202):
                        break
                await asyncio.sleep(0.05)
