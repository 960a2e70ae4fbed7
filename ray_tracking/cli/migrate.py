"""``ray-tracking migrate``: bring the schema of a database up to date without starting anything."""

from __future__ import annotations

import asyncio

import click

from ray_tracking.errors import SettingsError
from ray_tracking.settings import Settings
from ray_tracking.settings.masking import mask_url
from ray_tracking.stores import database


@click.command()
def command() -> None:
    """Apply the migrations to DATABASE_URL.

    The application does the same when it starts; this is for those who change
    schemas at a time of their own. Embedded Postgres needs it never.
    """
    settings = Settings.load()
    url = settings.database_connection_url
    if url is None:
        raise SettingsError("DATABASE_URL is not set; the embedded Postgres migrates itself")
    applied = asyncio.run(
        database.prepare(url, settings.database_schema, partitions=settings.partitions)
    )
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo(f"nothing to do: {mask_url(url)} is up to date")
