"""
Writing rows: the position of the log and what it stands for, rows and dead letters, move in
one transaction, so the position in Postgres is the truth, also after an unclear commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import asyncpg

from ray_tracking import failpoints
from ray_tracking.errors import Fenced
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.care import Standing
from ray_tracking.pipeline.flush import Move, Place, Refusal, Where
from ray_tracking.stores.failures import StoreRefused, StoreUnavailable
from ray_tracking.stores.flushes import Flushes
from ray_tracking.stores.positions import BOOK_COLUMNS, PositionReader, books_of, where_of
from ray_tracking.stores.session import Session

__all__ = ["PositionReader", "RowWriter", "StoreRefused", "StoreUnavailable", "Where"]

_TAKE_OVER = f"""
UPDATE log_positions SET
    writer_epoch = writer_epoch + 1, attempts = attempts + 1,
    deadly = CASE WHEN trying_index >= 0 THEN deadly || trying_index ELSE deadly END,
    trying_index = CASE WHEN trying_index >= 0 THEN NULL ELSE trying_index END,
    updated_at = now()
WHERE log_partition = ANY($1) AND log_lane = ANY($2)
RETURNING log_partition, log_lane, epoch, seq, writer_epoch, attempts, trying_index, deadly,
          {BOOK_COLUMNS}
"""

_POSITIONS = f"""
SELECT log_partition, log_lane, epoch, seq, writer_epoch, {BOOK_COLUMNS} FROM log_positions
WHERE log_partition = ANY($1) AND log_lane = ANY($2)
"""

_TRY = """
UPDATE log_positions SET trying_index = $4
WHERE log_partition = $1 AND log_lane = $2 AND writer_epoch = $3
"""


class RowWriter:
    """
    One writer's session on its positions.

    Every call raises :class:`StoreUnavailable` when Postgres does not answer, and
    :class:`StoreRefused` when it says no.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Of the writer: its session is found, and ended, by it.
        wheres: The (partition, lane) pairs that it writes.
    """

    def __init__(self, url: str, schema: str, name: str, wheres: Iterable[Where]) -> None:
        self._name = name
        self._session = Session(url, schema, name)
        wheres = set(wheres)
        self._partitions = sorted({partition for partition, _ in wheres})
        self._lanes = [LANES[lane] for lane in sorted({lane for _, lane in wheres})]
        self._epochs: dict[Where, int] = {}
        self._flushes = Flushes()
        #: What became of the events of each stream, as committed.
        self.books: dict[Where, Books] = {}

    async def take_over(self) -> dict[Where, Standing]:
        """Become the writer of these positions, and end the predecessor's sessions."""
        async with self._session.use() as connection:
            await self._session.end_predecessors(connection)
            rows = await connection.fetch(_TAKE_OVER, self._partitions, self._lanes)
        self._epochs = {where_of(row): row["writer_epoch"] for row in rows}
        self.books = {where_of(row): books_of(row) for row in rows}
        failpoints.reach("writer.taken_over")
        return {
            where_of(row): Standing(
                EntryId(row["epoch"], row["seq"]),
                row["attempts"],
                row["trying_index"],
                tuple(row["deadly"]),
            )
            for row in rows
        }

    async def announce(self, where: Where, index: int) -> None:
        """
        Say what will be tried next of a stream, before this process may die of it.

        Raises:
            Fenced: If another writer has taken over.
        """
        partition, lane = where
        async with self._session.use() as connection:
            moved = await connection.execute(
                _TRY, partition, LANES[lane].value, self._epochs[where], index
            )
        if moved != "UPDATE 1":
            raise Fenced(f"{self._name}: another writer has taken over")

    async def flush(self, moves: list[Move], letters: Mapping[Place, Refusal]) -> None:
        """
        Store what the moves hold, in one transaction.

        After a :class:`StoreUnavailable`, ask :meth:`settle` whether it went through.

        Args:
            moves: One for a stream.
            letters: The events that are to be dead letters, not rows.

        Raises:
            Fenced: If another writer has taken over.
        """
        async with self._session.use() as connection:
            booked = await self._write(connection, moves, letters)
            await connection.execute("COMMIT")
        failpoints.reach("writer.committed")
        self.books |= booked

    async def probe(
        self, moves: list[Move], letters: Mapping[Place, Refusal], only: Collection[Place]
    ) -> None:
        """Do the same as :meth:`flush` with some of the rows, and roll it back."""
        async with self._session.use() as connection:
            await self._write(connection, moves, letters, only)
            await connection.execute("ROLLBACK")

    async def settle(self, moves: list[Move]) -> bool:
        """
        After an unclear flush: did it go through?

        Raises:
            Fenced: If another writer has taken over meanwhile.
        """
        async with self._session.use() as connection:
            rows = await connection.fetch(_POSITIONS, self._partitions, self._lanes)
        if any(row["writer_epoch"] != self._epochs[where_of(row)] for row in rows):
            raise Fenced(f"{self._name}: another writer has taken over")
        positions = {where_of(row): EntryId(row["epoch"], row["seq"]) for row in rows}
        self.books = {where_of(row): books_of(row) for row in rows}
        if all(positions[move.where] == move.new for move in moves):
            return True
        if all(positions[move.where] == move.old for move in moves):
            return False
        raise Fenced(f"{self._name}: a position is neither where it was nor where it should be")

    async def close(self) -> None:
        """Drop the connection; the next call opens another."""
        await self._session.close()

    async def _write(
        self,
        connection: asyncpg.Connection[Any],
        moves: list[Move],
        letters: Mapping[Place, Refusal],
        only: Collection[Place] | None = None,
    ) -> dict[Where, Books]:
        booked = await self._flushes.write(connection, moves, self._epochs, letters, only)
        if len(booked) != len(moves):
            raise Fenced(f"{self._name}: a position is not where it was left")
        return booked
