"""One event a request: ``POST /events``, as fast as it is acknowledged."""

from __future__ import annotations

from benchmarks.lab import Figure, Lab

FIGURES = (
    Figure("no-op Starlette, same listener", "events/s"),
    Figure("acknowledged", "events/s", ("no-op Starlette, same listener",)),
    Figure("latency p50", "ms"),
    Figure("latency p99", "ms"),
    Figure("refused", "%"),
    Figure("rows, until all are in Postgres", "rows/s", ("acknowledged",)),
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    noop = await lab.send(lab.noop_port, "/events")
    result, rows_per_s = await lab.send_and_drain("/events", accepted=202)
    return {
        "no-op Starlette, same listener": noop.acknowledged / noop.seconds,
        "acknowledged": result.statuses.get(202, 0) / result.seconds,
        "latency p50": result.p50_ms,
        "latency p99": result.p99_ms,
        "refused": 100 * (1 - result.acknowledged / result.requests),
        "rows, until all are in Postgres": rows_per_s,
    }
