"""Batches of 500: events acknowledged, and rows until all are in Postgres."""

from __future__ import annotations

from typing import Any

from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.log_ceiling import append_batches

SIZE = 500
EVENTS = 100_000
CONNECTIONS = 8

FIGURES = (
    Figure("no-op Starlette, same bodies", "events/s"),
    Figure("JSON validation and XADD", "events/s"),
    Figure("COPY, asyncpg's encoding", "rows/s"),
    Figure("COPY, encoded beforehand", "rows/s"),
    Figure(
        "acknowledged", "events/s", ("JSON validation and XADD", "no-op Starlette, same bodies")
    ),
    Figure("latency p50", "ms"),
    Figure("latency p99", "ms"),
    Figure("load generator", "% of one"),
    Figure(
        "rows, until all are in Postgres",
        "rows/s",
        ("COPY, asyncpg's encoding", "COPY, encoded beforehand"),
    ),
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    shape: dict[str, Any] = {"batch": SIZE, "events": EVENTS, "connections": CONNECTIONS}
    noop = await lab.send(lab.noop_port, "/events/batch", **shape)
    appended = await append_batches(lab.service, EVENTS // SIZE, SIZE, CONNECTIONS)
    records, encoded = await lab.copy.records(), await lab.copy.encoded()
    result, rows_per_s = await lab.send_and_drain("/events/batch", **shape)
    all_accepted(result, "batch")
    return {
        "no-op Starlette, same bodies": noop.acknowledged * SIZE / noop.seconds,
        "JSON validation and XADD": appended,
        "COPY, asyncpg's encoding": records,
        "COPY, encoded beforehand": encoded,
        "acknowledged": EVENTS / result.seconds,
        "latency p50": result.p50_ms,
        "latency p99": result.p99_ms,
        "load generator": result.generator_percent,
        "rows, until all are in Postgres": rows_per_s,
    }
