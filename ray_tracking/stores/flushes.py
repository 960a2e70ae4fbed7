"""
What happens in the transaction of a flush, from its first statement to the last before its end:

    flip      dead letters that were sent again are none any more
    move      the positions, and with them the books
    copy      rows, into the tables of their days
    letters   what cannot be a row
    discard   what leads have left behind that were erased
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import date
from itertools import chain
from typing import Any

import asyncpg

from ray_tracking import failpoints
from ray_tracking.events import LANES
from ray_tracking.pipeline.books import Books
from ray_tracking.pipeline.flush import Move, Place, Refusal, Where, copy_parts, redriven
from ray_tracking.pipeline.rows import COLUMNS, COPY_HEADER, COPY_TRAILER, POSITION_COLUMNS
from ray_tracking.stores.database import create_partition, partition_name
from ray_tracking.stores.letters import flip, write_letters
from ray_tracking.stores.positions import BOOK_COLUMNS, books_of, where_of

_BOOKS = ", ".join(f"p.{column}" for column in BOOK_COLUMNS.split(", "))

#: After so many the other tasks of this process have their turn.
_YIELD_EVENTS = 500
#: Where there is nothing to be counted.
_NEVER = 2**53

_MOVE = f"""
UPDATE log_positions p
SET epoch = m.new_epoch, seq = m.new_seq, rows_total = p.rows_total + m.its_rows,
    dead_total = dead_total + m.its_dead, discarded_total = discarded_total + m.its_discarded,
    attempts = 1, trying_index = NULL, deadly = '{{}}', updated_at = now(),
    -- Where all before this is counted, what is still to be counted begins here.
    oldest_ms = coalesce(
        least(m.its_oldest_ms, CASE WHEN (r.epoch, r.seq) < (p.epoch, p.seq) THEN p.oldest_ms END),
        {_NEVER})
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
     m(its_partition, its_lane, old_epoch, old_seq, new_epoch, new_seq, its_writer,
       its_rows, its_dead, its_discarded, its_oldest_ms)
     JOIN rollup_positions r
     ON r.log_partition = m.its_partition AND r.log_lane = m.its_lane
WHERE p.log_partition = m.its_partition AND p.log_lane = m.its_lane
  AND p.epoch = m.old_epoch AND p.seq = m.old_seq AND p.writer_epoch = m.its_writer
RETURNING p.log_partition, p.log_lane, {_BOOKS}
"""


_NEWEST_ERASED = "SELECT (extract(epoch FROM max(until)) * 1000)::bigint FROM erased_leads"

_DISCARD_ERASED = f"""
WITH gone AS (
    DELETE FROM events e
    USING unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
              m(its_partition, its_lane, old_epoch, old_seq, new_epoch, new_seq),
          erased_leads t
    WHERE e.log_partition = m.its_partition AND e.log_lane = m.its_lane
      AND (e.log_epoch, e.log_seq) > (m.old_epoch, m.old_seq)
      AND (e.log_epoch, e.log_seq) <= (m.new_epoch, m.new_seq)
      AND t.lead_key = sha256(convert_to(e.lead_id, 'UTF8')) AND e.received_at <= t.until
    RETURNING e.log_partition, e.log_lane)
UPDATE log_positions p
SET rows_total = p.rows_total - n, discarded_total = p.discarded_total + n
FROM (SELECT log_partition, log_lane, count(*) AS n FROM gone GROUP BY 1, 2) g
WHERE p.log_partition = g.log_partition AND p.log_lane = g.log_lane
RETURNING p.log_partition, p.log_lane, {_BOOKS}
"""


class _DayMissing(Exception):
    """The table of a day is not there, or does not take these rows: ``error`` says which."""

    def __init__(self, error: asyncpg.PostgresError) -> None:
        super().__init__(error)
        self.error = error


class Flushes:
    """Writes flushes through a connection that is handed in."""

    def __init__(self) -> None:
        self._known_days: set[date] = set()

    async def write(
        self,
        connection: asyncpg.Connection[Any],
        moves: list[Move],
        epochs: Mapping[Where, int],
        letters: Mapping[Place, Refusal],
        only: Collection[Place] | None,
    ) -> dict[Where, Books]:
        """
        Begin a transaction, and do all of a flush but to end it.

        Args:
            connection: With nothing open on it.
            moves: One for a stream.
            epochs: Of the writer, at its positions.
            letters: The events that are to be dead letters, not rows.
            only: Which rows to copy; all, if it is not given.

        Returns:
            The new books of the streams whose position moved. One that is not among them
            belongs to another writer, and then nothing else was done.

        Raises:
            asyncpg.PostgresError: What Postgres says against it.
        """
        try:
            return await self._write(connection, moves, epochs, letters, only)
        except _DayMissing:
            await connection.execute("ROLLBACK")
            self._known_days.clear()
        try:
            return await self._write(connection, moves, epochs, letters, only)
        except _DayMissing as missing:
            # It was made a moment ago, so it is the row that belongs elsewhere.
            raise missing.error from None

    async def _write(
        self,
        connection: asyncpg.Connection[Any],
        moves: list[Move],
        epochs: Mapping[Where, int],
        letters: Mapping[Place, Refusal],
        only: Collection[Place] | None,
    ) -> dict[Where, Books]:
        copies = await _copies(moves, _chosen(letters, only))
        for day in copies:
            await self._ensure_day(connection, day)
        await connection.execute("BEGIN; SET LOCAL synchronous_commit = on")
        discarded = await flip(connection, redriven(moves))
        letters = {place: why for place, why in letters.items() if place not in discarded}
        rows = await connection.fetch(_MOVE, *_columns(moves, epochs, letters, discarded))
        if len(rows) != len(moves):
            return {}
        if discarded:
            copies = await _copies(moves, _chosen({**letters, **dict.fromkeys(discarded)}, only))
        failpoints.reach("writer.moved", *chain.from_iterable(copies.values()))
        for day, parts in copies.items():
            await _copy(connection, day, parts)
        failpoints.reach("writer.copied", *chain.from_iterable(copies.values()))
        await write_letters(connection, moves, letters)
        booked = {where_of(row): books_of(row) for row in rows}
        if await _may_be_erased(connection, moves):
            booked |= await _discard_erased(connection, moves)
        return booked

    async def _ensure_day(self, connection: asyncpg.Connection[Any], day: date) -> None:
        if day not in self._known_days:
            await create_partition(connection, day)
            self._known_days.add(day)


async def _may_be_erased(connection: asyncpg.Connection[Any], moves: list[Move]) -> bool:
    """Whether some of these events were received before a lead was erased."""
    oldest_ms = min((ms for move in moves if (ms := move.oldest_ms) is not None), default=None)
    # Asked after the positions have moved: whoever erases waits for those who hold them.
    newest_ms = await connection.fetchval(_NEWEST_ERASED)
    return oldest_ms is not None and newest_ms is not None and oldest_ms <= newest_ms


async def _discard_erased(
    connection: asyncpg.Connection[Any], moves: list[Move]
) -> dict[Where, Books]:
    rows = await connection.fetch(
        _DISCARD_ERASED,
        [move.where[0] for move in moves],
        [LANES[move.where[1]].value for move in moves],
        [move.old.epoch for move in moves],
        [move.old.seq for move in moves],
        [move.new.epoch for move in moves],
        [move.new.seq for move in moves],
    )
    return {where_of(row): books_of(row) for row in rows}


def _chosen(
    left_out: Collection[Place], only: Collection[Place] | None
) -> Callable[[Place], bool] | None:
    """Which rows to copy; None for all of them."""
    if only is not None:
        return lambda place: place in only and place not in left_out
    return (lambda place: place not in left_out) if left_out else None


async def _copies(
    moves: list[Move], wanted: Callable[[Place], bool] | None
) -> dict[date, list[bytes]]:
    """The body of a COPY for each day, in log order."""
    copies: dict[date, list[bytes]] = {}
    events = 0
    for move in moves:
        for entry in move.entries:
            for day, part in copy_parts(move.where, entry, wanted):
                copies.setdefault(day, []).append(part)
            events += entry.header.count
            if events >= _YIELD_EVENTS:
                events = 0
                await asyncio.sleep(0)
    return copies


async def _copy(connection: asyncpg.Connection[Any], day: date, parts: list[bytes]) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield COPY_HEADER
        for part in parts:
            yield part
        yield COPY_TRAILER

    try:
        await connection.copy_to_table(
            partition_name(day),
            columns=[*POSITION_COLUMNS, *COLUMNS],
            format="binary",
            source=source(),
        )
    except asyncpg.UndefinedTableError as error:
        raise _DayMissing(error) from None
    except asyncpg.CheckViolationError as error:
        if error.constraint_name:
            raise
        raise _DayMissing(error) from None


def _columns(
    moves: list[Move],
    epochs: Mapping[Where, int],
    letters: Collection[Place],
    discarded: Collection[Place],
) -> tuple[list[Any], ...]:
    dead = Counter(place.where for place in letters)
    lost = Counter(place.where for place in discarded)
    return (
        [move.where[0] for move in moves],
        [LANES[move.where[1]].value for move in moves],
        [move.old.epoch for move in moves],
        [move.old.seq for move in moves],
        [move.new.epoch for move in moves],
        [move.new.seq for move in moves],
        [epochs[move.where] for move in moves],
        [move.events - dead[move.where] - lost[move.where] for move in moves],
        [dead[move.where] for move in moves],
        [lost[move.where] for move in moves],
        [move.oldest_ms for move in moves],
    )
