"""
Memory (PSS) of each kind of process under a million events an hour, one in five a pixel.

The slope is that of the least squares, after a warm-up of ten minutes, or of a third of
the time where that is less. It is an extrapolation: over a quarter of an hour, a MiB more
or less is several MiB an hour. Every sample goes into a file beside the results.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Sequence
from secrets import token_hex
from statistics import linear_regression

import click

from benchmarks import report, steady
from benchmarks.answers import acknowledged, compare_rows, percent
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.processes import KINDS, OURS, Sample, watching
from benchmarks.service import Service

_RATE = 1_000_000 / 3600
_PIXEL_EVERY = 5
_EVERY_S = 5.0
_WARM_UP_S = 600.0
_DRAIN_S = 60

FIGURES = (
    Figure("acknowledged", "events/s"),
    Figure("events without 2xx", "%"),
    Figure("acknowledged, but no row", "events"),
    Figure("actors and replicas, at the end", "MiB"),
    Figure("all processes, at the end", "MiB"),
    *(Figure(f"{kind}: at the end", "MiB") for kind in KINDS),
    *(Figure(f"{kind}: slope", "MiB/hour") for kind in KINDS),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    secret = token_hex(32)
    async with Service({"email_encryption_key": secret}) as service:
        order = steady.Order(
            service.port,
            rate=_RATE,
            seconds=plan.memory_s,
            pixel_every=_PIXEL_EVERY,
            secret=secret,
        )
        async with steady.load(order) as load, watching(service, _EVERY_S) as samples:
            await asyncio.sleep(plan.memory_s)
            watched = list(samples)
            await load.finish()
        await service.until_waiting(0, _DRAIN_S, ("in_log", "spooled", "buffered"))
        numbers = list(acknowledged(load.answers))
        missing, _ = await compare_rows(service.database_url, numbers)
    _save(watched)
    from_s = watched[0].at_s + min(_WARM_UP_S, plan.memory_s / 3)
    warm = [sample for sample in watched if sample.at_s >= from_s]
    events = [answer for answer in load.answers if answer.kind == "event"]
    return [
        {
            "acknowledged": len(numbers) / plan.memory_s,
            "events without 2xx": percent((answer for answer in events if not answer.ok), events),
            "acknowledged, but no row": missing,
            "actors and replicas, at the end": sum(watched[-1].mib[kind] for kind in OURS),
            "all processes, at the end": sum(watched[-1].mib.values()),
            **{f"{kind}: at the end": watched[-1].mib[kind] for kind in KINDS},
            **{f"{kind}: slope": _slope(warm, kind) for kind in KINDS},
        }
    ]


def _slope(samples: Sequence[Sample], kind: str) -> float:
    """In MiB per hour."""
    hours = [sample.at_s / 3600 for sample in samples]
    return linear_regression(hours, [sample.mib[kind] for sample in samples]).slope


def _save(samples: Sequence[Sample]) -> None:
    path = report.new_file("memory.csv")
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["second", *KINDS])
        for sample in samples:
            values = [f"{sample.mib[kind]:.2f}" for kind in KINDS]
            lines.writerow([f"{sample.at_s - samples[0].at_s:.1f}", *values])
    click.echo(f"memory: every sample is in {path}", err=True)
