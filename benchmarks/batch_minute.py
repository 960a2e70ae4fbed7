"""
Batches of 500 for a minute: what Postgres keeps up with when it is not over in seconds.

Closed loop; the rows count until the last acknowledged event is one.
"""

from __future__ import annotations

from benchmarks.batch import CONNECTIONS, SIZE
from benchmarks.lab import Figure, Lab, all_accepted

FIGURES = (
    Figure("COPY, asyncpg's encoding", "rows/s"),
    Figure("COPY, encoded beforehand", "rows/s"),
    Figure("acknowledged", "events/s"),
    Figure("latency p99", "ms"),
    Figure(
        "rows, until all are in Postgres",
        "rows/s",
        ("COPY, asyncpg's encoding", "COPY, encoded beforehand"),
    ),
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    records, encoded = await lab.copy.records(), await lab.copy.encoded()
    result, rows_per_s = await lab.send_and_drain(
        "/events/batch", batch=SIZE, connections=CONNECTIONS, seconds=lab.plan.sustained_s
    )
    all_accepted(result, "batch-minute")
    return {
        "COPY, asyncpg's encoding": records,
        "COPY, encoded beforehand": encoded,
        "acknowledged": result.acknowledged * SIZE / result.seconds,
        "latency p99": result.p99_ms,
        "rows, until all are in Postgres": rows_per_s,
    }
