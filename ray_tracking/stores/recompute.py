"""
Carrying out a replay: the figures of a campaign are counted anew from its rows, into a
generation that nobody sees, and then shown at once.

    begin     a generation, the sealed sums in it, and the positions up to which rows are read
    step      some rows of the campaign, in the order in which they were received
    swap      with the roller held up: the rows that came meanwhile, and the change

Each is a transaction that also moves the replay on, so a process that dies takes back what it
had in hand and nothing else, and the next one goes on there. The figures of a whole campaign
are counted, also where the span is shorter: whether a lead's open is its first cannot be told
from a part. The span says which events the replay is about, and its progress counts those.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from ray_tracking import failpoints
from ray_tracking.errors import Fenced, TrackingError
from ray_tracking.events import LANES
from ray_tracking.pipeline.route import partition_of
from ray_tracking.stores.folding import COUNTED, SOURCE_COLUMNS, UNIQUE, fold
from ray_tracking.stores.rolling import SESSION_SETTINGS
from ray_tracking.stores.session import Session
from ray_tracking.stores.verify import SEALED

#: For the sums of days that are dropped, and for generations that are to go.
_WITHIN_S = 600.0
#: A transaction costs about the same for a thousand rows as for none, so it takes more batches
#: while it is quick, and fewer while it is slow.
_QUICK_S, _SLOW_S = 0.2, 1.0
_MAX_BATCHES = 20
#: More rows than that are not counted while the roller waits.
_MAX_ROWS_IN_SWAP = 5000

_TABLES = {
    "rollup_totals": ", ".join((*COUNTED, *UNIQUE, "first_event_at", "last_event_at")),
    "rollup_buckets": "bucket, bucket_start, event_type, is_machine, events",
    "rollup_groups": "kind, name, event_type, events",
    "rollup_links": "link_key, link_url, link_id, clicks, unique_clicks",
    "rollup_leads": "lead_id, flags",
    "rollup_link_leads": "link_key, lead_id",
}

_BEGIN = """
UPDATE replays SET status = 'RUNNING', runner_epoch = runner_epoch + 1, heard_at = now(),
                   started_at = coalesce(started_at, now())
WHERE id = $1 AND status IN ('PENDING', 'RUNNING') RETURNING runner_epoch
"""
_POSITIONS = """
SELECT log_lane, epoch, seq, rows_total FROM rollup_positions WHERE log_partition = $1
ORDER BY log_lane
"""
_OPEN = """
UPDATE replays SET generation = nextval('rollup_generation'), processed = 0, heard_at = now(),
                   received_at = NULL, event_id = NULL,
                   base_epochs = $2, base_seqs = $3, base_rows = $4
WHERE id = $1 RETURNING generation
"""
_BOUND = """
SELECT received_at, event_id FROM events
WHERE campaign_id = $1 AND (received_at, event_id) > ($2, $3)
ORDER BY received_at, event_id OFFSET $4 LIMIT 1
"""
_UP_TO_BASE = "CASE e.log_lane " + " ".join(
    f"WHEN '{lane}' THEN (e.log_epoch, e.log_seq) <= (($6::bigint[])[{n}], ($7::bigint[])[{n}])"
    for n, lane in enumerate(LANES, 1)
) + " END"  # fmt: skip
_ROWS = f"""
SELECT {SOURCE_COLUMNS}, $8::bigint AS generation FROM events e
WHERE e.campaign_id = $1 AND (e.received_at, e.event_id) > ($2, $3)
  AND (e.received_at, e.event_id) <= ($4, $5) AND {_UP_TO_BASE}
  AND e.tableoid <> ALL (ARRAY(SELECT table_oid FROM rollup_sealed_tables))
"""
_IN_SPAN = """
count(*) FILTER (WHERE occurred_at >= $9 AND occurred_at < $10
                   AND ($11::text[] IS NULL OR event_type = ANY($11)))
"""
_FOLD = fold(_ROWS, _IN_SPAN)
_COUNT = f"SELECT {_IN_SPAN} FROM ({_ROWS}) source"
_ADVANCE = """
UPDATE replays SET received_at = $2, event_id = $3, processed = processed + $4, heard_at = now()
WHERE id = $1
"""
# By position, as the roller reads: the campaign is chosen among the rows of its partition.
_BEHIND = f"""
SELECT {SOURCE_COLUMNS}, $1::bigint AS generation
FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
     s(lane, old_epoch, old_seq, new_epoch, new_seq)
CROSS JOIN LATERAL (
    SELECT * FROM events e
    WHERE e.log_partition = $7 AND e.log_lane = s.lane
      AND (e.log_epoch, e.log_seq) > (s.old_epoch, s.old_seq)
      AND (e.log_epoch, e.log_seq) <= (s.new_epoch, s.new_seq) OFFSET 0) e
WHERE e.campaign_id = $8
"""
_FOLD_BEHIND = fold(_BEHIND)
_REBASE = "UPDATE replays SET base_epochs = $2, base_seqs = $3, base_rows = $4 WHERE id = $1"
_SHOW = """
INSERT INTO rollup_generations AS g (campaign_id, generation, corrected_at)
VALUES ($1, $2, CASE WHEN $3 THEN now() END)
ON CONFLICT (campaign_id) DO UPDATE SET
    generation = excluded.generation,
    corrected_at = coalesce(excluded.corrected_at, g.corrected_at)
"""
_SUCCEED = """
UPDATE replays SET status = 'SUCCEEDED', finished_at = now(), heard_at = now() WHERE id = $1
"""
#: Have replays that go on begin anew, because rows that they may have counted are gone.
RESTART_REPLAYS = """
UPDATE replays SET base_epochs = NULL, generation = NULL, processed = 0
WHERE status IN ('PENDING', 'RUNNING')
"""
_LEFT_OVER = f"""
campaign_id = $1 AND generation <> {SEALED}
AND generation <> coalesce(
    (SELECT generation FROM rollup_generations WHERE campaign_id = $1), 0)
AND generation NOT IN (
    SELECT generation FROM replays
    WHERE generation IS NOT NULL AND status IN ('PENDING', 'RUNNING'))
"""


#: Before and behind every row.
_FIRST = datetime(1, 1, 2, tzinfo=UTC), UUID(int=0)
_LAST = datetime(9999, 12, 30, tzinfo=UTC), UUID(int=2**128 - 1)


class ReplayEnded(TrackingError):
    """The replay was stopped, or has ended otherwise."""

    code = "replay_ended"


class Recompute:
    """
    Carries out one replay.

    Every call raises :class:`StoreUnavailable` or :class:`StoreRefused` when Postgres does not
    do what it was asked, and may be repeated; ``Fenced`` when another process works on the
    replay; and :class:`ReplayEnded`.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        replay_id: Which replay.
    """

    def __init__(self, url: str, schema: str, replay_id: str) -> None:
        self._session = Session(
            url, schema, f"ray-tracking {replay_id}", SESSION_SETTINGS, _WITHIN_S
        )
        self._id = replay_id
        self._epoch = 0
        #: In the next transaction.
        self._batches = 1

    async def begin(self) -> None:
        """Become the one that works on it."""
        async with self._session.use() as connection:
            epoch = await connection.fetchval(_BEGIN, self._id)
        if epoch is None:
            raise ReplayEnded(f"the replay {self._id} has ended, or there is none")
        self._epoch = epoch

    async def step(self) -> bool:
        """
        Take some rows, in one transaction.

        Returns:
            Whether there are more.
        """
        began_s = time.monotonic()
        async with self._session.use() as connection:
            await connection.execute("BEGIN")
            replay = await self._mine(connection)
            if replay["base_epochs"] is None:
                await self._open(connection, replay)
                more = True
            else:
                more = await self._take(connection, replay)
            failpoints.reach("replay.counted")
            await connection.execute("END")
        took_s = time.monotonic() - began_s
        if took_s < _QUICK_S:
            self._batches = min(_MAX_BATCHES, self._batches * 2)
        elif took_s > _SLOW_S:
            self._batches = max(1, self._batches // 2)
        return more

    async def swap(self) -> bool:
        """
        Count what came meanwhile, and show the new figures; the replay has succeeded then.

        Returns:
            False where the replay was told to begin anew: there is a step to be taken.
        """
        more = True
        while more:
            async with self._session.use() as connection:
                await connection.execute("BEGIN")
                replay = await self._mine(connection)
                if replay["base_epochs"] is None:
                    await connection.execute("ROLLBACK")
                    return False
                more = replay["reprocess_analytics"] and await self._catch_up(connection, replay)
                if not more:
                    await connection.execute(_SUCCEED, self._id)
                failpoints.reach("replay.swapping")
                await connection.execute("END")
        failpoints.reach("replay.swapped")
        return True

    async def clear(self, campaign_id: str) -> None:
        """Drop generations of a campaign that nobody sees and nobody works on."""
        async with self._session.use() as connection:
            for table in _TABLES:
                await connection.execute(f"DELETE FROM {table} WHERE {_LEFT_OVER}", campaign_id)

    async def close(self) -> None:
        """Drop the connection. What is under way is rolled back."""
        await self._session.close()

    async def _mine(self, connection: asyncpg.Connection[Any]) -> Mapping[str, Any]:
        replay: Mapping[str, Any] | None = await connection.fetchrow(
            "SELECT * FROM replays WHERE id = $1 FOR UPDATE", self._id
        )
        if replay is not None and replay["status"] == "RUNNING":
            if replay["runner_epoch"] == self._epoch:
                return replay
            await connection.execute("ROLLBACK")
            raise Fenced(f"another process works on the replay {self._id}")
        await connection.execute("ROLLBACK")
        raise ReplayEnded(f"the replay {self._id} has ended, or there is none")

    async def _partition(self, connection: asyncpg.Connection[Any], campaign_id: str) -> int:
        count = await connection.fetchval("SELECT count(DISTINCT log_partition) FROM log_positions")
        return partition_of(campaign_id, count)

    async def _open(self, connection: asyncpg.Connection[Any], replay: Mapping[str, Any]) -> None:
        campaign_id = replay["campaign_id"]
        partition = await self._partition(connection, campaign_id)
        base = _base(await connection.fetch(_POSITIONS, partition))
        generation = await connection.fetchval(_OPEN, self._id, *base)
        if not replay["reprocess_analytics"]:
            return
        for table, columns in _TABLES.items():
            await connection.execute(
                f"INSERT INTO {table} (campaign_id, generation, {columns}) "
                f"SELECT campaign_id, $2, {columns} FROM {table} "
                f"WHERE campaign_id = $1 AND generation = {SEALED}",
                campaign_id,
                generation,
            )

    async def _take(self, connection: asyncpg.Connection[Any], replay: Mapping[str, Any]) -> bool:
        campaign_id = replay["campaign_id"]
        start = (replay["received_at"] or _FIRST[0], replay["event_id"] or _FIRST[1])
        rows = replay["batch_size"] * self._batches
        bound = await connection.fetchrow(_BOUND, campaign_id, *start, rows - 1)
        end = (bound["received_at"], bound["event_id"]) if bound else _LAST
        taken = await connection.fetchval(
            _FOLD if replay["reprocess_analytics"] else _COUNT,
            campaign_id,
            *start,
            *end,
            replay["base_epochs"],
            replay["base_seqs"],
            replay["generation"] or 0,
            replay["from_at"],
            replay["to_at"],
            replay["event_types"],
        )
        reached = end if bound else start
        await connection.execute(_ADVANCE, self._id, *reached, taken)
        return bound is not None

    async def _catch_up(
        self, connection: asyncpg.Connection[Any], replay: Mapping[str, Any]
    ) -> bool:
        """Add what came behind the base. True if that was too much to swap in the same breath."""
        campaign_id = replay["campaign_id"]
        partition = await self._partition(connection, campaign_id)
        rolled = await connection.fetch(_POSITIONS, partition)
        is_much: bool = _base(rolled)[2] - replay["base_rows"] > _MAX_ROWS_IN_SWAP
        if not is_much:
            rolled = await connection.fetch(f"{_POSITIONS} FOR UPDATE", partition)
        epochs, seqs, rows = _base(rolled)
        await connection.fetchval(
            _FOLD_BEHIND,
            replay["generation"],
            [lane.value for lane in LANES],
            replay["base_epochs"],
            replay["base_seqs"],
            epochs,
            seqs,
            partition,
            campaign_id,
        )
        if is_much:
            await connection.execute(_REBASE, self._id, epochs, seqs, rows)
        else:
            await connection.execute(
                _SHOW, campaign_id, replay["generation"], replay["broadcast_updates"]
            )
        return is_much


def _base(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int], int]:
    """Positions in the order of the lanes, and about how many rows stand up to them."""
    by_lane = {row["log_lane"]: row for row in rows}
    lanes = [by_lane[lane.value] for lane in LANES]
    return (
        [row["epoch"] for row in lanes],
        [row["seq"] for row in lanes],
        sum(row["rows_total"] for row in lanes),
    )
