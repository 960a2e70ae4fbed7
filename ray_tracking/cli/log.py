"""
``ray-tracking log``: gaps in the event log, going on behind one, and the spools that wait
for it.
"""

from __future__ import annotations

import asyncio
import time

import click

from ray_tracking.cli.servers import servers
from ray_tracking.errors import StartError
from ray_tracking.events import LANES
from ray_tracking.pipeline.spooling import SpoolReport
from ray_tracking.settings import Settings
from ray_tracking.stores.gaps import Gap, accept_gap, find_gap
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.rows import PositionReader


@click.group()
def command() -> None:
    """Look at the event log's gaps and spools."""


@command.command()
def spools() -> None:
    """List the spools of all nodes: events on disk that wait for the log."""
    found = asyncio.run(_spools(Settings.load(), forget=None))
    if not found:
        click.echo("no spools")
    for spool_id, report in sorted(found.items()):
        age_s = time.time() - report.reported_ms / 1000
        click.echo(
            f"{spool_id}  {report.node}  {report.events} events, {report.size_bytes} bytes, "
            f"reported {age_s:.0f} s ago"
        )


@command.command("forget-spool")
@click.argument("spool_id")
@click.confirmation_option(prompt="What is in it stays on its node's disk. Go on?")
def forget_spool(spool_id: str) -> None:
    """Wait no more for the spool SPOOL_ID of a node that is gone."""
    if not asyncio.run(_spools(Settings.load(), forget=spool_id)):
        raise StartError(f"there is no spool {spool_id}")
    click.echo(f"forgotten: {spool_id}")


@command.command()
def gaps() -> None:
    """List the gaps at which writers stand still."""
    found = asyncio.run(_gaps(Settings.load(), accept=None))
    if not found:
        click.echo("no gaps")
    for gap in found:
        click.echo(_describe(gap))


@command.command("accept-gap")
@click.argument("partition", type=int)
@click.confirmation_option(prompt="The missing events stay missing. Go on?")
def accept(partition: int) -> None:
    """Go on behind the gaps of PARTITION, without what is missing there."""
    accepted = asyncio.run(_gaps(Settings.load(), accept=partition))
    if not accepted:
        raise StartError(f"partition {partition} has no gap")
    for gap in accepted:
        click.echo(f"accepted: {_describe(gap)}")


def _describe(gap: Gap) -> str:
    missing = "an unknown number of" if gap.events is None else str(gap.events)
    return (
        f"partition {gap.partition}, lane {LANES[gap.lane]}: {missing} events are missing "
        f"between {gap.after} and {gap.found}"
    )


async def _spools(settings: Settings, *, forget: str | None) -> dict[str, SpoolReport]:
    """The spools as they are reported, or the one that was forgotten."""
    async with servers(settings) as (_, redis_url):
        log = EventLog(redis_url, settings.redis_prefix)
        try:
            found = await log.spools()
            if forget is None:
                return found
            forgotten = await log.forget_spool(forget)
            return {forget: found[forget]} if forgotten else {}
        finally:
            await log.close()


async def _gaps(settings: Settings, *, accept: int | None) -> list[Gap]:
    """The gaps of all partitions, or those of one that were accepted."""
    async with servers(settings) as (database_url, redis_url):
        log = EventLog(redis_url, settings.redis_prefix)
        positions = PositionReader(database_url, settings.database_schema, "ray-tracking log")
        try:
            stored = await positions.read()
            if stored is None:
                raise StartError("Postgres does not answer, and the positions are there")
            found = []
            for (partition, lane), position in sorted(stored.items()):
                if accept is None or accept == partition:
                    gap = await find_gap(log, partition, lane, position)
                    if gap is not None:
                        found.append(gap)
            if accept is not None:
                for gap in found:
                    await accept_gap(database_url, settings.database_schema, log, gap)
            return found
        finally:
            await positions.close()
            await log.close()
