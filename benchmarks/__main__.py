"""``python -m benchmarks [name ...]``: all benches, or those that are named."""

from __future__ import annotations

import asyncio
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from secrets import token_hex
from typing import Any

import asyncpg
import click

from benchmarks import goals, report
from benchmarks.ceilings import noop_servers
from benchmarks.lab import Lab
from benchmarks.plan import Plan
from benchmarks.service import LIMITS, Service
from ray_tracking.settings import Settings

#: These share a service and take turns, so that a bad minute does not fall on one alone.
IN_TURNS = (
    *("single", "pixel", "mixed", "batch", "batch-minute", "dedup", "cpu"),
    *("failover", "priority", "rollups", "looking"),
)
#: These take longer and have a service of their own, once each.
ALONE = (
    *("latency", "live", "fanout", "storm", "durability", "presets", "cold-start", "backlog"),
    *("reading", "replay", "overload", "outage", "memory"),
)
#: The same, but only where they are named: these need a browser.
ON_DEMAND = ("page",)

_DRAIN_S = 30

#: For each bench its runs, and for each run the value of each figure.
Found = dict[str, list[dict[str, float]]]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("names", nargs=-1, type=click.Choice(IN_TURNS + ALONE + ON_DEMAND))
@click.option("--runs", type=click.IntRange(1), default=3,
              help="Of each bench; of long ones, and of bad days, one.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=5,
              help="Of each run, where a bench goes by time.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1), default=64)
@click.option("--sustained-seconds", "sustained_s", type=click.FloatRange(1), default=60,
              help="batch-minute, presets.")  # fmt: skip
@click.option("--backlog", type=click.IntRange(1), default=1_000_000,
              help="backlog, and priority half of it: events that wait.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1000), default=10_000_000,
              help="backlog, reading: rows that are there.")  # fmt: skip
@click.option("--overload-seconds", "overload_s", type=click.FloatRange(1), default=60)
@click.option("--outage-seconds", "outage_s", type=click.FloatRange(1), default=60,
              help="Of Redis; of Postgres five times as long.")  # fmt: skip
@click.option("--memory-seconds", "memory_s", type=click.FloatRange(30), default=900)
@click.option("--rate", type=click.FloatRange(1), default=500,
              help="outage: requests per second.")  # fmt: skip
def main(names: tuple[str, ...], **plan: Any) -> None:
    """Measure a fresh service on this machine, beside its ceilings."""
    try:
        asyncio.run(_run(list(dict.fromkeys(names or IN_TURNS + ALONE)), Plan(**plan)))
    except asyncio.CancelledError:
        raise SystemExit("stopped by SIGTERM; what was measured until then stands above") from None


async def _run(names: list[str], plan: Plan) -> None:
    # As Ctrl-C does: what was started is stopped, and what was measured is shown.
    running = asyncio.current_task()
    assert running is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    about = {
        "commit": report.commit(),
        "machine": report.machine(),
        "versions": report.versions(),
        "plan": asdict(plan),
        "settings": LIMITS,
    }
    modules = {name: import_module(f"benchmarks.{name.replace('-', '_')}") for name in names}
    found: Found = {name: [] for name in names}
    failed: list[str] = []
    try:
        if in_turns := {name: modules[name] for name in names if name in IN_TURNS}:
            with _going_on("some of those that take turns", failed):
                await _take_turns(in_turns, plan, found, failed)
        for name in names:
            if name in ALONE + ON_DEMAND:
                click.echo(name, err=True)
                with _going_on(name, failed):
                    found[name] = await modules[name].run(plan)
    finally:
        benches = {name: (modules[name].FIGURES, runs) for name, runs in found.items() if runs}
        for name, (figures, runs) in benches.items():
            click.echo(report.table(name, figures, runs))
        if judged := goals.judge(benches):
            click.echo(goals.table(judged))
        click.echo(f"\n{report.save(benches, about, judged)}")
    if failed:
        raise SystemExit(f"not measured, or not to the end: {', '.join(failed)}")


@contextmanager
def _going_on(name: str, failed: list[str]) -> Iterator[None]:
    """One that fails takes nothing away from the others; it is named at the end."""
    try:
        yield
    except (Exception, SystemExit) as error:
        failed.append(name)
        click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
        if not isinstance(error, SystemExit):
            traceback.print_exc()


async def _take_turns(modules: dict[str, Any], plan: Plan, found: Found, failed: list[str]) -> None:
    replicas = Settings().ingress_replica_count
    click.echo("starting the service", err=True)
    settings = {"ingress_replicas": replicas, "email_encryption_key": token_hex(32)}
    async with Service(settings) as service, noop_servers(replicas) as port:
        database = await asyncpg.connect(service.database_url)
        lab = Lab(service, port, database, plan)
        for warm_up in (port, service.port):
            await lab.send(warm_up, "/events", seconds=1)
        await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered"))
        for number in range(1, plan.runs + 1):
            for name, module in modules.items():
                if name not in failed:
                    click.echo(f"run {number} of {plan.runs}: {name}", err=True)
                    with _going_on(name, failed):
                        found[name].append(await module.run(lab))
        await lab.check_rows()
        await database.close()
    click.echo("the service has stopped cleanly", err=True)


if __name__ == "__main__":
    main()
