"""
Connections to Postgres, the schema, and the day partitions of ``events``.

Every session gives up a transaction that its process has abandoned within seconds, so
that a stopped or unreachable owner holds no lock for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import Any

import asyncpg

from ray_tracking.errors import StartError

#: Partitions are made this many days ahead, so that midnight never waits for DDL.
DAYS_AHEAD = 7
_MIGRATION_LOCK = 0x7261795F7472  # "ray_tr"
_MINIMUM_VERSION = 150000
_CONNECT_TIMEOUT_S = 5.0

#: Postgres is not there, or the session ended while it was asked.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # The end of a session that arrives between two queries leaves asyncpg in no state.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
#: The same to whoever only reads, and has no transaction whose fate matters: also that an
#: administrator lets nobody in (``ALTER DATABASE … ALLOW_CONNECTIONS false``).
UNREADABLE = (*AWAY, asyncpg.ObjectNotInPrerequisiteStateError)

_SESSION = {
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def session_settings(schema: str, name: str) -> dict[str, str]:
    """What each of our sessions sets; ``name`` shows in ``pg_stat_activity``."""
    return {**_SESSION, "application_name": name, "search_path": schema}


async def connect(
    url: str, schema: str, name: str, settings: Mapping[str, str] | None = None
) -> asyncpg.Connection[Any]:
    """
    Open one connection; ``settings`` are more of what its session sets.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: If it cannot be had.
    """
    return await asyncpg.connect(
        url,
        timeout=_CONNECT_TIMEOUT_S,
        server_settings={**session_settings(schema, name), **(settings or {})},
    )


async def open_pool(
    url: str, schema: str, name: str, max_size: int, answer_within_s: float = 30
) -> asyncpg.Pool[Any]:
    """A pool that opens its connections when they are needed, so Postgres may be away."""
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=answer_within_s,
        max_inactive_connection_lifetime=60,
        reset=_leave_as_it_is,
        server_settings=session_settings(schema, name),
    )


async def _leave_as_it_is(connection: asyncpg.Connection[Any]) -> None:
    """Nobody leaves more behind than a transaction, which is rolled back before this is asked."""


async def prepare(url: str, schema: str, *, partitions: int) -> list[str]:
    """
    Bring the schema up to date and check that it is ours.

    Safe to call from several places at once: an advisory lock orders them.

    Returns:
        The migrations that were applied.

    Raises:
        StartError: If Postgres cannot be reached, is too old, holds somebody
            else's ``events``, or was made for another number of partitions.
    """
    try:
        connection = await connect(url, schema, "ray-tracking migrate")
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StartError(f"Postgres cannot be reached (DATABASE_URL): {reason}") from None
    try:
        if connection.get_server_version()[0] * 10_000 < _MINIMUM_VERSION:
            raise StartError("Postgres 15 or later is needed (DATABASE_URL)")
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            applied = await _migrate(connection, schema)
            await _check_partitions(connection, partitions)
        for day in days_ahead(datetime.now(UTC).date()):
            await create_partition(connection, day)
    except asyncpg.PostgresError as error:
        raise StartError(f"Postgres refused the schema {schema!r}: {error}") from None
    finally:
        await connection.close()
    return applied


async def _migrate(connection: asyncpg.Connection[Any], schema: str) -> list[str]:
    await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    ours = await connection.fetchval("SELECT to_regclass('tracking_migrations')")
    if ours is None:
        if await connection.fetchval("SELECT to_regclass('events')") is not None:
            raise StartError(
                f"the schema {schema!r} already has a table 'events' that is not ours; "
                "set database_schema (TRACKING_DATABASE_SCHEMA) to another schema"
            )
        await connection.execute(
            "CREATE TABLE tracking_migrations (name text PRIMARY KEY, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
    done = {row["name"] for row in await connection.fetch("SELECT name FROM tracking_migrations")}
    applied = []
    directory = files("ray_tracking.stores").joinpath("sql")
    for script in sorted(directory.iterdir(), key=lambda item: item.name):
        if script.name.endswith(".sql") and script.name not in done:
            await connection.execute(script.read_text())
            await connection.execute(
                "INSERT INTO tracking_migrations (name) VALUES ($1)", script.name
            )
            applied.append(script.name)
    return applied


async def _check_partitions(connection: asyncpg.Connection[Any], partitions: int) -> None:
    stored = await connection.fetchval(
        "INSERT INTO tracking_meta VALUES ('partitions', $1) "
        "ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING value",
        str(partitions),
    )
    if int(stored) != partitions:
        raise StartError(
            f"the database was made for {stored} partitions; set partitions "
            f"(TRACKING_PARTITIONS) to {stored}, or use another database_schema"
        )
    await connection.execute(
        "INSERT INTO log_positions (log_partition, log_lane) "
        "SELECT p, l FROM generate_series(0, $1 - 1) p, "
        "unnest('{high,normal,parked}'::text[]) l ON CONFLICT DO NOTHING",
        partitions,
    )
    await connection.execute(
        "INSERT INTO rollup_positions (log_partition, log_lane) "
        "SELECT log_partition, log_lane FROM log_positions ON CONFLICT DO NOTHING"
    )


def days_ahead(today: date) -> list[date]:
    """Yesterday, today, and the days for which partitions are made ahead."""
    return [today + timedelta(days=n) for n in range(-1, DAYS_AHEAD + 1)]


def partition_name(day: date) -> str:
    """The table of one day of ``events``."""
    return f"events_{day:%Y%m%d}"


async def create_partition(connection: asyncpg.Connection[Any], day: date) -> None:
    """Make the table of one day, if it is not there."""
    name = partition_name(day)
    if await connection.fetchval("SELECT to_regclass($1)", name) is None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF events "
                f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
