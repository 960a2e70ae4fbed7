"""
What it costs that an acknowledged event is on the disk: the same load with and without.

Without: ``appendfsync no`` in Valkey, so an append is answered once the kernel has it. All
else is the same, Postgres's own commits too, which nobody's acknowledgement waits for.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import click
from redis.asyncio import Redis

from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.plan import Plan
from benchmarks.servers import Servers
from benchmarks.service import Service

_BATCHES: dict[str, Any] = {
    "path": "/events/batch",
    "batch": SIZE,
    "events": EVENTS,
    "connections": CONNECTIONS,
}
#: Enough connections that the machine is the limit, not the time that an answer takes.
_SINGLE = {"path": "/events", "connections": 256}
_LOADS: dict[str, dict[str, Any]] = {"single": _SINGLE, "batch": _BATCHES}

FIGURES = tuple(
    figure
    for load in _LOADS
    for figure in (
        Figure(f"{load}: no fsync", "events/s"),
        Figure(f"{load}: fsync always", "events/s", (f"{load}: no fsync",)),
        Figure(f"{load}: no fsync, p50", "ms"),
        Figure(f"{load}: fsync always, p50", "ms"),
        Figure(f"{load}: cost", "times"),
    )
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure in turns, on a service of its own with servers of its own."""
    async with Servers() as servers, Service(servers.settings) as service:
        database = await asyncpg.connect(service.database_url)
        redis = Redis.from_url(servers.valkey.url)
        lab = Lab(service, 0, database, plan)
        await lab.send_and_drain("/events", seconds=1)  # to warm up
        found = []
        for number in range(1, plan.runs + 1):
            click.echo(f"run {number} of {plan.runs}", err=True)
            found.append(await _both(lab, redis))
        await redis.aclose()
        await database.close()
    return found


async def _both(lab: Lab, redis: Redis) -> dict[str, float]:
    found: dict[str, float] = {}
    for load, shape in _LOADS.items():
        for how, value in (("fsync always", "always"), ("no fsync", "no")):
            await redis.config_set("appendfsync", value)
            result, _ = await lab.send_and_drain(**shape)
            all_accepted(result, f"durability, {load}")
            found[f"{load}: {how}"] = result.acknowledged * shape.get("batch", 1) / result.seconds
            found[f"{load}: {how}, p50"] = result.p50_ms
        found[f"{load}: cost"] = found[f"{load}: no fsync"] / found[f"{load}: fsync always"]
    await redis.config_set("appendfsync", "always")
    return found
