"""
Postgres away, then the event log away, under a steady load of events and pixels.

Both are stopped as their administrator does it, so connections are refused, and started
again on the same data; Postgres is away five times as long. The load goes on before,
meanwhile and after; a share is of the requests that were due while the server was down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from secrets import token_hex
from typing import NamedTuple

import click

from benchmarks import steady
from benchmarks.answers import Answer, acknowledged, compare_rows, percent, percentile
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.servers import Servers
from benchmarks.service import Service
from ray_tracking.stores.embedded.server import Server

#: Each so-many-th request.
_PIXEL_EVERY = 5
_CALM_S = 5.0
_DRAIN_S = 900

FIGURES = (
    Figure("Postgres away", "s"),
    Figure("Postgres away: events with 2xx", "%"),
    Figure("Postgres away: events without", "events"),
    Figure("Postgres away: pixels durable", "%"),
    Figure("Postgres back: backlog drained", "s"),
    Figure("Redis away", "s"),
    Figure("Redis away: events with 2xx", "%"),
    Figure("Redis away: events without", "events"),
    Figure("Redis away: 2xx with fallback", "%"),
    Figure("Redis away: pixel p50", "ms"),
    Figure("Redis away: pixel p99", "ms"),
    Figure("Redis away: pixels durable", "%"),
    Figure("Redis back: last fallback", "s"),
    Figure("Redis back: spool drained", "s"),
    Figure("acknowledged, but no row", "events"),
    Figure("more than one row", "events"),
)


class _Outage(NamedTuple):
    """Times of ``time.perf_counter``."""

    down_s: float
    up_s: float
    drained_s: float

    def due_meanwhile(self, answers: Sequence[Answer], kind: str) -> list[Answer]:
        """Requests of a kind that were due while it was down."""
        return [a for a in answers if a.kind == kind and self.down_s <= a.due_s < self.up_s]


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own with servers of its own."""
    secret = token_hex(32)
    async with (
        Servers() as servers,
        Service({**servers.settings, "email_encryption_key": secret}) as service,
    ):
        order = steady.Order(service.port, rate=plan.rate, pixel_every=_PIXEL_EVERY, secret=secret)
        async with steady.load(order) as load:

            async def outage(server: Server, seconds: float, where: Sequence[str]) -> _Outage:
                await asyncio.sleep(_CALM_S)
                load.check()
                click.echo(f"{server.name} is away for {seconds:g} s", err=True)
                await servers.stop(server)
                down_s = time.perf_counter()
                await asyncio.sleep(seconds)
                await servers.start(server)
                up_s = time.perf_counter()
                # Under load the log is never empty: a second's worth is none.
                drained_s = await service.until_waiting(plan.rate, _DRAIN_S, where)
                return _Outage(down_s, up_s, drained_s)

            postgres = await outage(servers.postgres, 5 * plan.outage_s, ("in_log",))
            redis = await outage(servers.valkey, plan.outage_s, ("in_log", "spooled"))
            await asyncio.sleep(_CALM_S)
            load.stop()
            await load.finish()
        await service.until_waiting(0, _DRAIN_S, ("in_log", "spooled", "buffered"))
        missing, doubled = await compare_rows(service.database_url, acknowledged(load.answers))
    return [
        {
            **_of_postgres(postgres, load.answers),
            **_of_redis(redis, load.answers),
            "acknowledged, but no row": missing,
            "more than one row": doubled,
        }
    ]


def _of_postgres(outage: _Outage, answers: Sequence[Answer]) -> dict[str, float]:
    events = outage.due_meanwhile(answers, "event")
    pixels = outage.due_meanwhile(answers, "pixel")
    return {
        "Postgres away": outage.up_s - outage.down_s,
        "Postgres away: events with 2xx": percent((a for a in events if a.ok), events),
        "Postgres away: events without": sum(not a.ok for a in events),
        "Postgres away: pixels durable": percent((a for a in pixels if a.acknowledged), pixels),
        "Postgres back: backlog drained": outage.drained_s - outage.up_s,
    }


def _of_redis(outage: _Outage, answers: Sequence[Answer]) -> dict[str, float]:
    events = outage.due_meanwhile(answers, "event")
    pixels = outage.due_meanwhile(answers, "pixel")
    taken = [answer for answer in events if answer.ok]
    waits_ms = [answer.took_s * 1000 for answer in pixels]
    last_fallback_s = max((a.due_s + a.took_s for a in answers if a.fallback), default=outage.up_s)
    return {
        "Redis away": outage.up_s - outage.down_s,
        "Redis away: events with 2xx": percent(taken, events),
        "Redis away: events without": len(events) - len(taken),
        "Redis away: 2xx with fallback": percent((a for a in taken if a.fallback), taken),
        "Redis away: pixel p50": percentile(waits_ms, 0.50),
        "Redis away: pixel p99": percentile(waits_ms, 0.99),
        "Redis away: pixels durable": percent((a for a in pixels if a.acknowledged), pixels),
        "Redis back: last fallback": last_fallback_s - outage.up_s,
        "Redis back: spool drained": outage.drained_s - outage.up_s,
    }
