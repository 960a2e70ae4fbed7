"""How far every stream has become rows, and what became of it: the reading side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.flush import Where
from ray_tracking.stores.database import connect
from ray_tracking.stores.failures import UNCLEAR

#: Of ``log_positions``, as :func:`books_of` reads them.
BOOK_COLUMNS = "rows_total, dead_total, discarded_total, missing_total"


def where_of(row: Any) -> Where:
    """The stream of a row of ``log_positions``."""
    return row["log_partition"], LANES.index(Lane(row["log_lane"]))


def books_of(row: Any) -> Books:
    """The books in a row of ``log_positions``."""
    return Books(*(row[column] for column in BOOK_COLUMNS.split(", ")))


class PositionReader:
    """
    What is committed in Postgres of every stream, whoever writes it.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Shown in ``pg_stat_activity``.
    """

    def __init__(self, url: str, schema: str, name: str) -> None:
        self._url = url
        self._schema = schema
        self._name = name
        self._connection: asyncpg.Connection[Any] | None = None

    async def read(self) -> Mapping[Where, EntryId] | None:
        """The positions, or None when Postgres does not answer."""
        rows = await self._fetch("epoch, seq")
        if rows is None:
            return None
        return {where_of(row): EntryId(row["epoch"], row["seq"]) for row in rows}

    async def books(self) -> Mapping[Where, Books] | None:
        """The books of every stream, or None when Postgres does not answer."""
        rows = await self._fetch(BOOK_COLUMNS)
        return None if rows is None else {where_of(row): books_of(row) for row in rows}

    async def totals(self) -> Mapping[Where, int] | None:
        """Events that were ever booked, or None when Postgres does not answer."""
        books = await self.books()
        return None if books is None else {where: its.total for where, its in books.items()}

    async def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch(self, columns: str) -> list[Any] | None:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._url, self._schema, self._name)
            rows: list[Any] = await self._connection.fetch(
                f"SELECT log_partition, log_lane, {columns} FROM log_positions", timeout=5
            )
            return rows
        except (*UNCLEAR, asyncpg.PostgresError):
            await self.close()
            return None
