"""
Counting rows behind the writer: figures, and the positions up to which they count, move in
one transaction.

A position of the log and its rows are committed together, so whoever reads the position sees
every row up to it. What stands between the rolled and the committed position is therefore all
there, and is counted once, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import asyncpg

from ray_tracking import failpoints
from ray_tracking.errors import Fenced
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.flush import Where
from ray_tracking.stores.folding import SOURCE_COLUMNS, fold
from ray_tracking.stores.positions import where_of
from ray_tracking.stores.session import Session

# The tables of days grow while statistics stand still, and a plan made for an empty one reads
# all of a full one: rows are found by the index on the log position, whatever the planner
# believes, and days without any of them are left out when the query is planned.
SESSION_SETTINGS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
    # What is lost is counted again: the position is lost with it.
    "synchronous_commit": "off",
}

_TAKE_OVER = """
UPDATE rollup_positions SET roller_epoch = roller_epoch + 1 WHERE log_partition = ANY($1)
RETURNING log_partition, log_lane, roller_epoch
"""

_BEHIND = """
SELECT r.log_partition, r.log_lane, r.epoch, r.seq, r.roller_epoch, r.rows_total,
       p.epoch AS to_epoch, p.seq AS to_seq, p.oldest_ms, p.rows_total - r.rows_total AS behind
FROM rollup_positions r JOIN log_positions p USING (log_partition, log_lane)
WHERE r.log_partition = ANY($1) AND (p.epoch, p.seq) > (r.epoch, r.seq)
ORDER BY r.log_partition, r.log_lane FOR UPDATE OF r
"""

_ROWS_BETWEEN = """
e.log_partition = s.its_partition AND e.log_lane = s.its_lane
AND (e.log_epoch, e.log_seq) > (s.old_epoch, s.old_seq)
AND (e.log_epoch, e.log_seq) <= (s.new_epoch, s.new_seq)
"""

# The entry in which the budget ends is counted as a whole.
_CUT = f"""
SELECT s.its_partition AS log_partition, s.its_lane AS log_lane, c.log_epoch, c.log_seq
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     s(its_partition, its_lane, old_epoch, old_seq, new_epoch, new_seq)
CROSS JOIN LATERAL (
    SELECT e.log_epoch, e.log_seq FROM events e
    WHERE {_ROWS_BETWEEN} AND e.received_at >= to_timestamp($7::bigint / 1000.0)
    ORDER BY e.log_epoch, e.log_seq, e.log_index OFFSET $8 LIMIT 1) c
"""

_SOURCE = f"""
SELECT e.*, coalesce((SELECT g.generation FROM rollup_generations g
                      WHERE g.campaign_id = e.campaign_id), 0) AS generation
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     s(its_partition, its_lane, old_epoch, old_seq, new_epoch, new_seq)
CROSS JOIN LATERAL (
    SELECT {SOURCE_COLUMNS} FROM events e
    WHERE {_ROWS_BETWEEN} AND e.received_at >= to_timestamp($7::bigint / 1000.0)
      AND e.campaign_id IS NOT NULL OFFSET 0) e
"""

_MOVE = """
UPDATE rollup_positions r
SET epoch = m.new_epoch, seq = m.new_seq, rows_total = m.its_rows, updated_at = now()
FROM unnest($1::int[], $2::text[], $5::bigint[], $6::bigint[], $8::bigint[])
     m(its_partition, its_lane, new_epoch, new_seq, its_rows)
WHERE r.log_partition = m.its_partition AND r.log_lane = m.its_lane
"""

_FOLD = fold(_SOURCE, beside=_MOVE)


class Step(NamedTuple):
    """What one step of the roller has done."""

    #: Rows of campaigns that it has counted.
    rows: int
    #: About as many wait to be counted.
    behind: int


class RollupWriter:
    """
    One roller's session on its positions.

    Every call raises :class:`StoreUnavailable` when Postgres does not answer, and
    :class:`StoreRefused` when it says no; then nothing has changed, or all of a step.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Of the roller: its session is found, and ended, by it.
        partitions: Those that it counts, in all lanes.
    """

    def __init__(self, url: str, schema: str, name: str, partitions: Iterable[int]) -> None:
        self._name = name
        self._session = Session(url, schema, name, SESSION_SETTINGS)
        self._partitions = sorted(partitions)
        self._epochs: dict[Where, int] = {}

    async def take_over(self) -> None:
        """Become the roller of these partitions, and end the predecessor's session."""
        async with self._session.use() as connection:
            await self._session.end_predecessors(connection)
            rows = await connection.fetch(_TAKE_OVER, self._partitions)
        self._epochs = {where_of(row): row["roller_epoch"] for row in rows}

    async def step(self, max_rows: int) -> Step:
        """
        Count what stands between the rolled and the committed positions, in one transaction.

        Args:
            max_rows: About as many rows at most; the rest is left to the next step.

        Raises:
            Fenced: If another roller has taken over.
        """
        async with self._session.use() as connection:
            await connection.execute("BEGIN")
            streams = await connection.fetch(_BEHIND, self._partitions)
            if any(row["roller_epoch"] != self._epochs[where_of(row)] for row in streams):
                await connection.execute("ROLLBACK")
                raise Fenced(f"{self._name}: another roller has taken over")
            if not streams:
                await connection.execute("ROLLBACK")
                return Step(0, 0)
            oldest_ms = min(row["oldest_ms"] for row in streams)
            ends = await self._ends(connection, streams, oldest_ms, max_rows)
            totals, left = _totals(streams, ends, max_rows)
            rows = await connection.fetchval(_FOLD, *_columns(streams, ends), oldest_ms, totals)
            failpoints.reach("roller.counted")
            await connection.execute("END")
        failpoints.reach("roller.committed")
        return Step(rows, left)

    async def close(self) -> None:
        """Drop the connection; the next call opens another."""
        await self._session.close()

    async def _ends(
        self,
        connection: asyncpg.Connection[Any],
        streams: list[Any],
        oldest_ms: int,
        max_rows: int,
    ) -> dict[Where, EntryId]:
        """Up to where each stream is counted in this step."""
        ends = {where_of(row): EntryId(row["to_epoch"], row["to_seq"]) for row in streams}
        share = _share(streams, max_rows)
        long = [row for row in streams if row["behind"] > share]
        if long:
            cuts = await connection.fetch(_CUT, *_columns(long, ends), oldest_ms, share)
            ends |= {where_of(row): EntryId(row["log_epoch"], row["log_seq"]) for row in cuts}
        return ends


def _totals(
    streams: list[Any], ends: Mapping[Where, EntryId], max_rows: int
) -> tuple[list[int], int]:
    """How many rows of each stream are counted up to its end; about how many are left behind."""
    share = _share(streams, max_rows)
    totals, left = [], 0
    for row in streams:
        if ends[where_of(row)] == (row["to_epoch"], row["to_seq"]):
            totals.append(row["rows_total"] + row["behind"])
        else:
            totals.append(row["rows_total"] + share)
            left += max(1, row["behind"] - share)
    return totals, left


def _share(streams: list[Any], max_rows: int) -> int:
    """How many rows of each stream; the streams that are behind share a step."""
    return max(1, max_rows // len(streams))


def _columns(streams: list[Any], ends: Mapping[Where, EntryId]) -> tuple[list[Any], ...]:
    return (
        [row["log_partition"] for row in streams],
        [row["log_lane"] for row in streams],
        [row["epoch"] for row in streams],
        [row["seq"] for row in streams],
        [ends[where_of(row)].epoch for row in streams],
        [ends[where_of(row)].seq for row in streams],
    )
