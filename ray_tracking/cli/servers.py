"""Postgres and Redis for the commands that work on them directly, whether a service runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ray_tracking.errors import SettingsError
from ray_tracking.settings import Settings
from ray_tracking.stores import database
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.embedded.paths import was_started
from ray_tracking.stores.queries import Queries


@asynccontextmanager
async def servers(
    settings: Settings, *, postgres: bool = True, valkey: bool = True
) -> AsyncIterator[tuple[str, str]]:
    """
    Where Postgres and Redis are; embedded ones that are wanted run meanwhile.

    Raises:
        SettingsError: If no service has ever stored anything in an embedded one that is wanted.
    """
    postgres = postgres and settings.embedded_postgres
    valkey = valkey and settings.embedded_valkey
    _check_stored(settings.data_dir, {"postgres": postgres, "valkey": valkey})
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


def _check_stored(data_dir: Path, wanted: Mapping[str, bool]) -> None:
    """A fresh server would have nothing to say, and say that nothing is amiss."""
    names = [name for name, is_wanted in wanted.items() if is_wanted]
    missing = [name for name in names if not was_started(data_dir, name)]
    if missing:
        where = data_dir if missing == names else data_dir / missing[0]
        raise SettingsError(
            f"data_dir: nothing is stored in {where}; run this with the settings of the service "
            "(TRACKING_DATA_DIR), or set DATABASE_URL and REDIS_URL"
        )


@asynccontextmanager
async def queries(settings: Settings) -> AsyncIterator[tuple[Queries, str]]:
    """
    Reads of the database, with its schema up to date; and where it is.

    Raises:
        SettingsError: As for :func:`servers`.
        StartError: If there is none, or it is not as it must be.
    """
    # Of Valkey nothing is read: it is wanted where it runs beside the Postgres, as its service has
    # both, and a guard has one choice of servers.
    async with servers(settings, valkey=settings.embedded_postgres) as (url, _):
        await database.prepare(url, settings.database_schema, partitions=settings.partitions)
        opened = await Queries.open(url, settings.database_schema)
        try:
            yield opened, url
        finally:
            await opened.close()
