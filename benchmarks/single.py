"""
One event a request: ``POST /events``, as fast as it is acknowledged.

First as fast as 64 connections are answered, then the highest rate that is sustained when
requests come whether others are answered or not (:mod:`benchmarks.sustained`). A bare call
of a Ray actor stands beside it: the least that a hop through Ray costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.lab import Figure, Lab
from benchmarks.load import Result
from benchmarks.ray_calls import bare_calls

OPEN_LOOP = (
    Figure("no-op Starlette, sustained", "events/s"),
    Figure("no-op Starlette, load generator", "% of one"),
    Figure("sustained", "events/s", ("no-op Starlette, sustained",)),
    Figure("sustained: p50", "ms"),
    Figure("sustained: p99", "ms"),
    Figure("sustained: load generator", "% of one"),
)

FIGURES = (
    Figure("no-op Starlette, same listener", "events/s"),
    Figure("bare Ray actor calls", "calls/s"),
    Figure("bare Ray actor call, p50", "ms"),
    Figure("acknowledged", "events/s", ("no-op Starlette, same listener", "bare Ray actor calls")),
    Figure("latency p50", "ms"),
    Figure("latency p99", "ms"),
    Figure("refused", "%"),
    Figure("load generator", "% of one"),
    Figure("rows, until all are in Postgres", "rows/s", ("acknowledged",)),
    *OPEN_LOOP,
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    noop = await lab.send(lab.noop_port, "/events")
    calls_per_s, call_ms = await bare_calls(lab.service, lab.plan.connections, lab.plan.seconds)
    result, rows_per_s = await lab.send_and_drain("/events")
    return {
        "no-op Starlette, same listener": noop.acknowledged / noop.seconds,
        "bare Ray actor calls": calls_per_s,
        "bare Ray actor call, p50": call_ms,
        "acknowledged": result.acknowledged / result.seconds,
        "latency p50": result.p50_ms,
        "latency p99": result.p99_ms,
        "refused": 100 * result.refused / result.offered,
        "load generator": result.generator_percent,
        "rows, until all are in Postgres": rows_per_s,
        **await sustained(lab, noop, result, {"path": "/events"}),
    }


async def sustained(
    lab: Lab, noop: Result, result: Result, shape: Mapping[str, Any]
) -> dict[str, float]:
    """The open loop, beside that of the no-op app; started near to the closed loops' rates."""
    least = await lab.sustained(lab.noop_port, noop.acknowledged / noop.seconds, shape)
    most = await lab.sustained(lab.service.port, result.acknowledged / result.seconds, shape)
    (answered,) = most.results
    return {
        "no-op Starlette, sustained": least.rate,
        "no-op Starlette, load generator": least.generator_percent,
        "sustained": most.rate,
        "sustained: p50": answered.p50_ms,
        "sustained: p99": answered.p99_ms,
        "sustained: load generator": most.generator_percent,
    }
