"""Postgres and Redis for the commands that work on them directly, whether a service runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ray_tracking.settings import Settings
from ray_tracking.stores import database
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.queries import Queries


@asynccontextmanager
async def servers(
    settings: Settings, *, postgres: bool = True, valkey: bool = True
) -> AsyncIterator[tuple[str, str]]:
    """Where Postgres and Redis are; embedded ones that are wanted run meanwhile."""
    postgres = postgres and settings.embedded_postgres
    valkey = valkey and settings.embedded_valkey
    embedded = None
    if postgres or valkey:
        embedded = await EmbeddedServers.start(
            settings.data_dir,
            postgres=postgres,
            valkey=valkey,
            buffers_mib=settings.postgres_buffers_mib,
        )
    urls = embedded.urls if embedded else None
    try:
        yield (
            settings.database_connection_url or (urls and urls.database_url) or "",
            settings.redis_connection_url or (urls and urls.redis_url) or "",
        )
    finally:
        if embedded is not None:
            await embedded.release()


@asynccontextmanager
async def queries(settings: Settings) -> AsyncIterator[tuple[Queries, str]]:
    """
    Reads of the database, with its schema up to date; and where it is.

    Raises:
        StartError: If there is none, or it is not as it must be.
    """
    async with servers(settings) as (url, _):
        await database.prepare(url, settings.database_schema, partitions=settings.partitions)
        opened = await Queries.open(url, settings.database_schema)
        try:
            yield opened, url
        finally:
            await opened.close()
