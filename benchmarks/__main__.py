"""``python -m benchmarks [name ...]``: all benches, or those that are named."""

from __future__ import annotations

import asyncio
from importlib import import_module

import asyncpg
import click

from benchmarks import report
from benchmarks.ceilings import noop_servers
from benchmarks.lab import Lab
from benchmarks.service import Service
from ray_tracking.settings import Settings

BENCHES = ("single", "batch", "failover")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(BENCHES))
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=5, show_default=True,
              help="Of each run, where a bench goes by time.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1), default=64, show_default=True)
def main(names: tuple[str, ...], runs: int, seconds: float, connections: int) -> None:
    """Measure a fresh service on this machine, beside its ceilings."""
    asyncio.run(_run(names or BENCHES, runs, seconds, connections))


async def _run(names: tuple[str, ...], runs: int, seconds: float, connections: int) -> None:
    about = {"commit": report.commit(), "machine": report.machine()}
    modules = {name: import_module(f"benchmarks.{name}") for name in dict.fromkeys(names)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in modules}
    replicas = Settings().ingress_replica_count
    click.echo("starting the service", err=True)
    async with Service({"ingress_replicas": replicas}) as service, noop_servers(replicas) as port:
        database = await asyncpg.connect(service.database_url)
        lab = Lab(service, port, database, seconds=seconds, connections=connections)
        about["versions"] = report.versions(await database.fetchval("SHOW server_version"))
        about["settings"] = service.settings | {"connections": connections, "seconds": seconds}
        for warm_up in (port, service.port):
            await lab.send(warm_up, "/events", seconds=1)
        # Benches take turns, so that a bad minute does not fall on one of them alone.
        for number in range(1, runs + 1):
            for name, module in modules.items():
                click.echo(f"run {number} of {runs}: {name}", err=True)
                found[name].append(await module.run(lab))
        await lab.check_rows()
        await database.close()
    click.echo("the service has stopped cleanly", err=True)
    benches = {name: (module.FIGURES, found[name]) for name, module in modules.items()}
    for name, (figures, values) in benches.items():
        click.echo(report.table(name, figures, values))
    click.echo(f"\n{report.save(benches, about)}")


if __name__ == "__main__":
    main()
