"""
Pixels and clicks, one of each in turn, acknowledged: the answer says that they are durable.

A hit is answered after 50 ms in any case; one that is not durable by then does not count,
for the open loop neither. The closed loop's requests are made beforehand, because a token
takes the load generator longer than a request.
"""

from __future__ import annotations

from typing import Any

from benchmarks.lab import Figure, Lab
from benchmarks.single import OPEN_LOOP, sustained

#: More than anything here answers.
_MOST_PER_S = 30_000

FIGURES = (
    Figure("no-op Starlette, same listener", "events/s"),
    Figure("acknowledged", "events/s", ("no-op Starlette, same listener",)),
    Figure("latency p50", "ms"),
    Figure("latency p99", "ms"),
    Figure("not durable when answered", "%"),
    Figure("load generator", "% of one"),
    Figure("rows, until all are in Postgres", "rows/s", ("acknowledged",)),
    *OPEN_LOOP,
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    hits: dict[str, Any] = {"path": "/pixel", "click_every": 2}
    seconds = lab.plan.seconds
    much = {**hits, "seconds": seconds, "events": round(seconds * _MOST_PER_S)}
    noop = await lab.send(lab.noop_port, **much)
    result, rows_per_s = await lab.send_and_drain(**much)
    return {
        "no-op Starlette, same listener": noop.acknowledged / noop.seconds,
        "acknowledged": result.acknowledged / result.seconds,
        "latency p50": result.p50_ms,
        "latency p99": result.p99_ms,
        "not durable when answered": 100 * (1 - result.acknowledged / result.offered),
        "load generator": result.generator_percent,
        "rows, until all are in Postgres": rows_per_s,
        **await sustained(lab, noop, result, hits),
    }
