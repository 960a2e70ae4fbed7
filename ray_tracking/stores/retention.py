"""
Dropping days of raw events, so that the figures stay and no writer waits.

    rename    the table, so that no writer finds it; a row that comes so late waits for the end
    wait      until all that is in it is counted
    seal      its figures are added to the sealed sums, which stand in for its rows from then on
    detach    concurrently: readers and writers of other days go on
    drop

After each step the catalogue says how far it is, so whoever comes next goes on there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import date
from typing import Any, NamedTuple

import asyncpg

from ray_tracking import failpoints
from ray_tracking.errors import TrackingError
from ray_tracking.pipeline.retention import LEAVING, DayTable, due
from ray_tracking.stores.folding import SOURCE_COLUMNS, fold
from ray_tracking.stores.recompute import RESTART_REPLAYS
from ray_tracking.stores.rolling import SESSION_SETTINGS
from ray_tracking.stores.session import Session
from ray_tracking.stores.verify import SEALED

#: For the figures of a large day.
_WITHIN_S = 3600.0
_COUNTED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1
_LOCK = 0x7261795F726574  # "ray_ret"

_TABLES = """
SELECT c.relname AS name, c.oid AS table_oid, i.inhrelid IS NOT NULL AS is_attached,
       coalesce(i.inhdetachpending, false) AS is_pending,
       greatest(c.reltuples, 0)::bigint AS rows, pg_total_relation_size(c.oid) AS size_bytes,
       s.table_oid IS NOT NULL AS is_sealed
FROM pg_class c
     LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'events'::regclass
     LEFT JOIN rollup_sealed_tables s ON s.table_oid = c.oid
WHERE c.relkind = 'r' AND c.relname LIKE 'events\\_%'
  AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
"""
_BEHIND = """
SELECT count(*) FROM rollup_positions r
JOIN unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[]) p(part, lane, epoch, seq)
     ON r.log_partition = p.part AND r.log_lane = p.lane
WHERE (r.epoch, r.seq) < (p.epoch, p.seq)
"""


class NotCounted(TrackingError):
    """What is in the table is not all counted, so it cannot be dropped yet."""

    code = "not_counted"


class Dropped(NamedTuple):
    """A day that is gone, or would go."""

    day: date
    rows: int
    size_bytes: int


class Retention:
    """
    Drops days.

    Every call raises :class:`StoreUnavailable` or :class:`StoreRefused` when Postgres does not
    do what it was asked; another one goes on from there.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._session = Session(url, schema, "ray-tracking retention", SESSION_SETTINGS, _WITHIN_S)

    async def due(self, keep_days: int) -> list[Dropped]:
        """What would be dropped now; rows are estimates."""
        async with self._session.use() as connection:
            tables = await self._tables(connection)
            chosen = await self._due(connection, tables, keep_days)
        return [_described(table, tables[table.name]) for table in chosen]

    async def run(self, keep_days: int) -> AsyncIterator[Dropped]:
        """
        Drop what is due, day by day. Where somebody else is at it, nothing.

        Raises:
            NotCounted: The roller is too far behind.
        """
        async with self._session.use() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                return
        try:
            for _ in range(10_000):
                async with self._session.use() as connection:
                    tables = await self._tables(connection)
                    chosen = await self._due(connection, tables, keep_days)
                    if not chosen:
                        break
                    state = tables[chosen[0].name]
                    await self._drop(connection, chosen[0], state)
                yield _described(chosen[0], state)
        finally:
            await self.close()  # and with the session goes the lock

    async def close(self) -> None:
        """Drop the connection."""
        await self._session.close()

    async def _tables(self, connection: asyncpg.Connection[Any]) -> dict[str, Any]:
        return {row["name"]: row for row in await connection.fetch(_TABLES)}

    async def _due(
        self, connection: asyncpg.Connection[Any], tables: dict[str, Any], keep_days: int
    ) -> list[DayTable]:
        today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        return due(tables, today, keep_days)

    async def _drop(self, connection: asyncpg.Connection[Any], table: DayTable, state: Any) -> None:
        name, oid = table.name, state["table_oid"]
        if not table.is_leaving:
            name += LEAVING
            # Waits for flushes into this day that are under way, and for nobody else.
            await connection.execute(f"ALTER TABLE {table.name} RENAME TO {name}")
            failpoints.reach("retention.renamed")
        if state["is_attached"] and not state["is_sealed"]:
            await self._until_counted(connection)
            await self._seal(connection, name, oid)
            failpoints.reach("retention.sealed")
        if state["is_attached"]:
            how = "FINALIZE" if state["is_pending"] else "CONCURRENTLY"
            await connection.execute(f"ALTER TABLE events DETACH PARTITION {name} {how}")
            failpoints.reach("retention.detached")
        async with connection.transaction():
            await connection.execute(f"DROP TABLE {name}")
            await connection.execute("DELETE FROM rollup_sealed_tables WHERE table_oid = $1", oid)

    async def _until_counted(self, connection: asyncpg.Connection[Any]) -> None:
        """Return when the figures have all that is committed now."""
        rows = await connection.fetch(
            "SELECT log_partition, log_lane, epoch, seq FROM log_positions"
        )
        committed = [[row[column] for row in rows] for column in range(4)]
        deadline_s = time.monotonic() + _COUNTED_WITHIN_S
        while await connection.fetchval(_BEHIND, *committed):
            if time.monotonic() > deadline_s:
                raise NotCounted("not all rows are counted yet: is the service running?")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _seal(self, connection: asyncpg.Connection[Any], name: str, oid: int) -> None:
        source = (
            f"SELECT {SOURCE_COLUMNS}, {SEALED}::bigint AS generation FROM {name} e "
            "WHERE e.campaign_id IS NOT NULL"
        )
        async with connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = on")
            await connection.execute(fold(source))
            await connection.execute("INSERT INTO rollup_sealed_tables VALUES ($1, $2)", oid, name)
            # They have counted some of these rows, and others not.
            await connection.execute(RESTART_REPLAYS)


def _described(table: DayTable, state: Any) -> Dropped:
    return Dropped(table.day, state["rows"], state["size_bytes"])
