"""
What it costs to count rows into figures, beside all that it costs to take and store them.

Counting is one session in Postgres, so its processor time can be told from all the rest: on a
machine that is busy, ingest with rollups costs as many times of rows alone.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
import psutil

from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.processes import cpu_s

_DRAIN_S = 60
_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'writer-%-rollups%'"
_ROLLED = "SELECT sum(rows_total) FROM rollup_positions"

FIGURES = (
    Figure("rows, until all are in Postgres", "rows/s"),
    Figure("counted behind the last row", "ms"),
    Figure("rows alone", "us/event"),
    Figure("counting", "us/event"),
    Figure("with rollups, of rows alone", "times"),
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    sessions = [psutil.Process(row["pid"]) for row in await lab.database.fetch(_SESSIONS)]
    before, counting_before = cpu_s(lab.service), _spent_s(sessions)
    result, rows_per_s = await lab.send_and_drain(
        "/events/batch", batch=SIZE, events=EVENTS, connections=CONNECTIONS
    )
    all_accepted(result, "rollups")
    behind_s = await _until_counted(lab.database, await lab.rows())
    counting_us = (_spent_s(sessions) - counting_before) * 1e6 / EVENTS
    after = cpu_s(lab.service)
    all_us = sum(after[kind] - before[kind] for kind in after) * 1e6 / EVENTS
    return {
        "rows, until all are in Postgres": rows_per_s,
        "counted behind the last row": behind_s * 1000,
        "rows alone": all_us - counting_us,
        "counting": counting_us,
        "with rollups, of rows alone": all_us / (all_us - counting_us),
    }


def _spent_s(sessions: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in sessions)


async def _until_counted(database: asyncpg.Connection[asyncpg.Record], rows: int) -> float:
    began_s = time.perf_counter()
    while await database.fetchval(_ROLLED) < rows:
        if time.perf_counter() > began_s + _DRAIN_S:
            raise SystemExit(f"not all rows are counted after {_DRAIN_S} s")
        await asyncio.sleep(0.01)
    return time.perf_counter() - began_s
