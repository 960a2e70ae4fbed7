"""``ray-tracking retention``: drop days of raw events; their figures stay."""

from __future__ import annotations

import asyncio

import click

from ray_tracking.cli.servers import queries
from ray_tracking.settings import Settings
from ray_tracking.stores.retention import Dropped, Retention


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be dropped.")
@click.option("--days", type=click.IntRange(1), help="Instead of raw_retention_days.")
def command(dry_run: bool, days: int | None) -> None:
    """Drop the raw events of days older than raw_retention_days; all figures stay.

    A running service does the same once a minute. Writers do not wait for it.
    """
    settings = Settings.load()
    keep_days = days if days is not None else settings.raw_retention_days
    count = asyncio.run(_run(settings, keep_days, dry_run))
    if not count:
        click.echo(f"nothing is older than {keep_days} days")


async def _run(settings: Settings, keep_days: int, dry_run: bool) -> int:
    count = 0
    async with queries(settings) as (_, url):
        retention = Retention(url, settings.database_schema)
        try:
            if dry_run:
                for day in await retention.due(keep_days):
                    count += 1
                    _say("would be dropped", day)
            else:
                async for day in retention.run(keep_days):
                    count += 1
                    _say("dropped", day)
        finally:
            await retention.close()
    return count


def _say(what: str, day: Dropped) -> None:
    size_mb = day.size_bytes / 1_000_000
    click.echo(f"{day.day}  {what}: about {day.rows:,} events, {size_mb:,.1f} MB")
