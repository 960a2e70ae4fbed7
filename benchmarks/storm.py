"""
2,000 clients that lose their connection at once, under load, and come back with their cursors.

One replica is killed and the clients of the other drop their connections too. Nobody may miss
anything: everyone is told ``recovered: true``, and ends with as many opens as there are rows. No
client may cost Postgres a query: it is asked as often as before, by writers and watchers.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import asyncpg

from benchmarks import listeners, steady
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.processes import find
from benchmarks.service import Service
from benchmarks.statements import counting

_CLIENTS, _RATE = 2000, 200
_DRAIN_S = 60
_SETTLE_S = 3.0
_ROWS = "SELECT campaign_id, count(*) AS n FROM events GROUP BY 1"

FIGURES = (
    Figure("all back after", "s"),
    Figure("recovered", "%"),
    Figure("clients with a gap at the end", "clients"),
    Figure("statements in the storm", "/s"),
    Figure("statements before it", "/s"),
    Figure("not acknowledged", "events"),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    async with Service({"ingress_replicas": 2}) as service:
        database = await asyncpg.connect(service.database_url)
        order = steady.Order(service.port, rate=_RATE, seconds=None)
        crowd = listeners.Order(service.port, _CLIENTS, 1)
        async with listeners.listening(crowd) as clients:
            await clients.all_subscribed()
            async with steady.load(order) as load:
                await asyncio.sleep(_SETTLE_S)
                lab = SimpleNamespace(service=service, database=database)
                async with counting(lab) as before:
                    await asyncio.sleep(_SETTLE_S)
                async with counting(lab) as during:
                    began_s = time.perf_counter()
                    find(service, "ingress")[0].kill()
                    clients.reconnect()
                    back_s = await clients.all_subscribed() - began_s
                await asyncio.sleep(_SETTLE_S)
                load.stop()
                await load.finish()
            await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered"))
            await asyncio.sleep(_SETTLE_S)
            heard = await clients.finish()
        rows = {row["campaign_id"]: row["n"] for row in await database.fetch(_ROWS)}
        await database.close()
    answers = [one for one in heard if one.recovered is not None and one.at_s > began_s]
    last: dict[int, int] = {}
    campaign_of = {one.client: one.campaign for one in heard}
    for one in heard:
        last[one.client] = one.opens
    gaps = sum(
        last.get(client) != rows.get(f"bench-campaign-{campaign:03}", 0)
        for client, campaign in campaign_of.items()
    )
    return [
        {
            "all back after": back_s,
            "recovered": 100 * sum(bool(one.recovered) for one in answers) / max(1, len(answers)),
            "clients with a gap at the end": gaps,
            "statements in the storm": during.statements / back_s,
            "statements before it": before.statements / _SETTLE_S,
            "not acknowledged": sum(not answer.acknowledged for answer in load.answers),
        }
    ]
