"""
Whether the presets do what their names say: each as its file in ``serve_configs`` has it.

How fast batches become durable, in a closed loop; then the memory of all processes (PSS) at
the end of a steady load of batches that lasts as long as events are remembered. Nothing is
set otherwise than users have it; so a campaign is limited, and there are 200.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import asyncpg
import click

from benchmarks import steady
from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.plan import Plan
from benchmarks.processes import OURS, watching
from benchmarks.service import Service
from ray_tracking.cli.serve_file import read_config

_FILES = Path(__file__).parent.parent / "serve_configs"
_PRESETS = {
    "default": "local",
    "high_volume": "high_volume",
    "memory_optimized": "memory_optimized",
}
_STEADY_PER_S = 5_000

FIGURES = tuple(
    Figure(f"{preset}: {what}", unit, () if preset == "default" else (f"default: {what}",))
    for what, unit in (
        ("batches acknowledged", "events/s"),
        ("actors and replicas", "MiB"),
        ("all processes", "MiB"),
    )
    for preset in _PRESETS
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure each preset, on a service of its own each."""
    found: dict[str, float] = {}
    for preset, file in _PRESETS.items():
        click.echo(preset, err=True)
        settings = read_config(_FILES / f"{file}.yaml").args
        async with Service(settings, limits={}) as service:
            found |= {f"{preset}: {k}": v for k, v in (await _measure(service, plan)).items()}
    return [found]


async def _measure(service: Service, plan: Plan) -> dict[str, float]:
    rates = []
    database = await asyncpg.connect(service.database_url)
    lab = Lab(service, 0, database, plan)
    for _ in range(1 + plan.runs):  # the first one is to warm up
        result, _ = await lab.send_and_drain(
            "/events/batch", batch=SIZE, events=EVENTS, connections=CONNECTIONS
        )
        all_accepted(result, "presets")
        rates.append(EVENTS / result.seconds)
    order = steady.Order(
        service.port,
        rate=_STEADY_PER_S / SIZE,
        seconds=plan.sustained_s,
        batch=SIZE,
        first=result.next_number,
        connections=64,
    )
    async with steady.load(order) as load, watching(service, every_s=2) as samples:
        await load.finish()
        memory = samples[-1].mib
    await database.close()
    return {
        "batches acknowledged": median(rates[1:]),
        "actors and replicas": sum(memory[kind] for kind in OURS),
        "all processes": sum(memory.values()),
    }
