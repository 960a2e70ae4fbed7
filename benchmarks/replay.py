"""
A replay of a million events beside ingest: how fast it is, and what is left for new events.

Batches in a closed loop, so that they take all that is left: for a while alone, and then for
as long as the replay takes, which the command line carries out as users start it. At the end
the figures are those of the rows.
"""

from __future__ import annotations

import asyncio
from statistics import median

import asyncpg
import click

from benchmarks.batch import CONNECTIONS, SIZE
from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.plan import Plan
from benchmarks.reading import make_rows, replay
from benchmarks.service import Service

_EVENTS = 1_000_000
_CAMPAIGN = "replayed"

FIGURES = (
    Figure("replayed, nothing beside it", "events/s"),
    Figure("replayed beside ingest", "events/s", ("replayed, nothing beside it",)),
    Figure("acknowledged, no replay", "events/s"),
    Figure("acknowledged beside it", "events/s", ("acknowledged, no replay",)),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    async with Service({"raw_retention_days": 365}) as service:
        database = await asyncpg.connect(service.database_url)
        click.echo("making the rows", err=True)
        await make_rows(database, {_CAMPAIGN: _EVENTS})
        await database.execute("VACUUM ANALYZE events", timeout=600)
        lab = Lab(service, 0, database, plan)
        await _ingest(lab, 1)  # to warm up
        quiet_s = [await replay(service, _CAMPAIGN, number) for number in range(plan.runs)]
        alone, beside, beside_s = [], [], []
        for number in range(plan.runs):
            alone.append(await _ingest(lab, plan.seconds))
            rate, took_s = await _together(lab, plan.runs + number)
            beside.append(rate)
            beside_s.append(took_s)
        await database.close()
    return [
        {
            "replayed, nothing beside it": _EVENTS / median(quiet_s),
            "replayed beside ingest": _EVENTS / median(beside_s),
            "acknowledged, no replay": median(alone),
            "acknowledged beside it": median(beside),
        }
    ]


async def _ingest(lab: Lab, seconds: float) -> float:
    result, _ = await lab.send_and_drain(
        "/events/batch", batch=SIZE, connections=CONNECTIONS, seconds=seconds
    )
    all_accepted(result, "replay")
    return result.acknowledged * SIZE / result.seconds


async def _together(lab: Lab, number: int) -> tuple[float, float]:
    """Events acknowledged in a second while it replays, and how long that took."""
    work = asyncio.create_task(replay(lab.service, _CAMPAIGN, number))
    pieces = []
    while not work.done():
        result = await lab.send(
            lab.service.port, "/events/batch", batch=SIZE, connections=CONNECTIONS, seconds=1
        )
        all_accepted(result, "replay")
        pieces.append(result)
    # The last piece was sent for a part beside nothing.
    counted = pieces[:-1] or pieces
    rate = sum(piece.acknowledged for piece in counted) * SIZE
    return rate / sum(piece.seconds for piece in counted), await work
