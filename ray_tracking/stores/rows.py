"""
Writing rows: the position of the log and the rows that it stands for move in one
transaction, so the position in Postgres is the truth, also after an unclear commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.errors import Fenced, TrackingError
from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.append import Entry, EntryId
from ray_tracking.pipeline.route import received_ms
from ray_tracking.pipeline.rows import (
    COLUMNS,
    COPY_HEADER,
    COPY_TRAILER,
    POSITION_COLUMNS,
    copy_tuples,
)
from ray_tracking.stores.database import connect, create_partition, partition_name

#: A partition and a lane: one stream.
Where = tuple[int, int]

#: A session that has not answered by then is given up, and what it did is unclear.
ANSWER_WITHIN_S = 30.0
_DAY_MS = 86_400_000
_UNIX_DAY = date(1970, 1, 1).toordinal()

_MOVE = """
UPDATE log_positions p
SET epoch = m.new_epoch, seq = m.new_seq, rows_total = rows_total + m.events, updated_at = now()
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::bigint[])
     m(log_partition, log_lane, old_epoch, old_seq, new_epoch, new_seq, events, writer_epoch)
WHERE p.log_partition = m.log_partition AND p.log_lane = m.log_lane
  AND p.epoch = m.old_epoch AND p.seq = m.old_seq AND p.writer_epoch = m.writer_epoch
"""

_TAKE_OVER = """
UPDATE log_positions SET writer_epoch = writer_epoch + 1, updated_at = now()
WHERE log_partition = ANY($1) AND log_lane = ANY($2)
RETURNING log_partition, log_lane, epoch, seq, writer_epoch
"""

_POSITIONS = """
SELECT log_partition, log_lane, epoch, seq, writer_epoch FROM log_positions
WHERE log_partition = ANY($1) AND log_lane = ANY($2)
"""

_END_PREDECESSORS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()
  AND usename = current_user
"""


class StoreUnavailable(TrackingError):
    """Postgres did not answer, or it is not clear what it did."""

    code = "database_unavailable"


class Move(NamedTuple):
    """One stream's step in a flush: its position moves, its entries become rows."""

    where: Where
    old: EntryId
    new: EntryId
    entries: list[Entry]

    @property
    def events(self) -> int:
        return sum(entry.header.count for entry in self.entries)


class RowWriter:
    """
    One writer's session on its positions.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Of the writer: its session is found, and ended, by it.
        wheres: The (partition, lane) pairs that it writes.
    """

    def __init__(self, url: str, schema: str, name: str, wheres: Iterable[Where]) -> None:
        self._url = url
        self._schema = schema
        self._name = name
        # With the schema, because two deployments may share a database; Postgres cuts at 63.
        self._session_name = f"{name} {schema}"[:63]
        self._partitions = sorted({partition for partition, _ in wheres})
        self._lanes = [LANES[lane] for lane in sorted({lane for _, lane in wheres})]
        self._epochs: dict[Where, int] = {}
        self._known_days: set[date] = set()
        self._connection: asyncpg.Connection[Any] | None = None

    async def take_over(self) -> dict[Where, EntryId]:
        """
        Become the writer of these positions, and end the predecessor's sessions.

        Raises:
            StoreUnavailable: If Postgres does not answer.
        """
        async with self._session() as connection:
            await connection.fetch(_END_PREDECESSORS, self._session_name)
            rows = await connection.fetch(_TAKE_OVER, self._partitions, self._lanes)
        return self._read_positions(rows, learn=True)

    async def flush(self, moves: list[Move]) -> None:
        """
        Store what the moves hold, in one transaction.

        Raises:
            Fenced: If another writer has taken over.
            StoreUnavailable: If Postgres does not answer. After this, ask
                :meth:`settle` which moves went through.
            asyncpg.PostgresError: If a row is refused.
        """
        writer_epochs = [self._epochs[move.where] for move in moves]
        copies = self._copies(moves)
        async with self._session() as connection:
            for day in copies:
                await self._ensure_day(connection, day)
            # Not as a context: what fails is rolled back by the end of the session.
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SET LOCAL synchronous_commit = on")
            moved = await connection.execute(_MOVE, *_columns(moves), writer_epochs)
            if moved != f"UPDATE {len(moves)}":
                raise Fenced(f"{self._name}: a position is not where it was left")
            for day, parts in copies.items():
                await connection.copy_to_table(
                    partition_name(day),
                    columns=[*POSITION_COLUMNS, *COLUMNS],
                    format="binary",
                    source=_stream(parts),
                )
            await transaction.commit()

    async def settle(self, moves: list[Move]) -> bool:
        """
        After an unclear flush: did it go through?

        Raises:
            Fenced: If another writer has taken over meanwhile.
            StoreUnavailable: If Postgres still does not answer.
        """
        async with self._session() as connection:
            rows = await connection.fetch(_POSITIONS, self._partitions, self._lanes)
        positions = self._read_positions(rows, learn=False)
        if all(positions[move.where] == move.new for move in moves):
            return True
        if all(positions[move.where] == move.old for move in moves):
            return False
        raise Fenced(f"{self._name}: a position is neither where it was nor where it should be")

    async def close(self) -> None:
        """Drop the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """
        The connection, for as long as all goes well on it.

        Whatever goes wrong ends it, without a word: a dead network would not answer a
        ROLLBACK either, and a task that is being cancelled must not wait for it.
        """
        connection = await self._connected()
        timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN_S, connection.terminate)
        try:
            yield connection
        except BaseException as error:
            await self.close()
            if isinstance(error, _UNCLEAR):
                raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            timer.cancel()

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await connect(self._url, self._schema, self._session_name)
            except (*_UNCLEAR, asyncpg.PostgresError) as error:
                raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        return self._connection

    def _read_positions(self, rows: list[Any], *, learn: bool) -> dict[Where, EntryId]:
        positions: dict[Where, EntryId] = {}
        for row in rows:
            where = (row["log_partition"], LANES.index(Lane(row["log_lane"])))
            positions[where] = EntryId(row["epoch"], row["seq"])
            if learn:
                self._epochs[where] = row["writer_epoch"]
            elif row["writer_epoch"] != self._epochs[where]:
                raise Fenced(f"{self._name}: another writer has taken over")
        return positions

    def _copies(self, moves: list[Move]) -> dict[date, list[bytes]]:
        """The body of a COPY for each day, in log order."""
        copies: dict[date, list[bytes]] = {}
        for move in moves:
            partition, lane = move.where
            for entry in move.entries:
                ids = entry.header.event_ids
                days = [received_ms(ids[at : at + 6]) // _DAY_MS for at in range(0, len(ids), 16)]
                numbered = list(enumerate(entry.rows))
                for day in dict.fromkeys(days):
                    chosen = [pair for pair, its in zip(numbered, days, strict=True) if its == day]
                    copies.setdefault(date.fromordinal(_UNIX_DAY + day), []).append(
                        copy_tuples(partition, LANES[lane], *entry.id, chosen)
                    )
        return copies

    async def _ensure_day(self, connection: asyncpg.Connection[Any], day: date) -> None:
        if day not in self._known_days:
            await create_partition(connection, day)
            self._known_days.add(day)


#: The connection is gone or going: whatever was asked last may have happened or not.
_UNCLEAR = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # The end of a session that arrives between two queries leaves asyncpg in no state.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


def _columns(moves: list[Move]) -> tuple[list[Any], ...]:
    return (
        [move.where[0] for move in moves],
        [LANES[move.where[1]].value for move in moves],
        [move.old.epoch for move in moves],
        [move.old.seq for move in moves],
        [move.new.epoch for move in moves],
        [move.new.seq for move in moves],
        [move.events for move in moves],
    )


async def _stream(parts: list[bytes]) -> AsyncIterator[bytes]:
    yield COPY_HEADER
    for part in parts:
        yield part
    yield COPY_TRAILER


class PositionReader:
    """
    How far every stream has become rows, as committed.

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
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._url, self._schema, self._name)
            rows = await self._connection.fetch(
                "SELECT log_partition, log_lane, epoch, seq FROM log_positions", timeout=5
            )
        except (*_UNCLEAR, asyncpg.PostgresError):
            await self.close()
            return None
        return {
            (row["log_partition"], LANES.index(Lane(row["log_lane"]))): EntryId(
                row["epoch"], row["seq"]
            )
            for row in rows
        }

    async def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
