"""``ray-tracking log``: gaps in the event log, and going on behind one."""

from __future__ import annotations

import asyncio

import click

from ray_tracking.errors import StartError
from ray_tracking.events import LANES
from ray_tracking.settings import Settings
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.gaps import Gap, accept_gap, find_gap
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.rows import PositionReader


@click.group()
def command() -> None:
    """Look at gaps in the event log, and accept one."""


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


async def _gaps(settings: Settings, *, accept: int | None) -> list[Gap]:
    """The gaps of all partitions, or those of one that were accepted."""
    servers = None
    if settings.embedded_postgres or settings.embedded_valkey:
        servers = await EmbeddedServers.start(
            settings.data_dir, postgres=settings.embedded_postgres, valkey=settings.embedded_valkey
        )
    urls = servers.urls if servers else None
    database_url = settings.database_connection_url or (urls and urls.database_url) or ""
    redis_url = settings.redis_connection_url or (urls and urls.redis_url) or ""
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
        if servers is not None:
            await servers.release()
