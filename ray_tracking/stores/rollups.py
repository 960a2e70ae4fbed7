"""The figures of campaigns as they are counted, and up to where they count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import asyncpg

from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.flush import Where
from ray_tracking.stores.database import UNREADABLE, open_pool
from ray_tracking.stores.failures import StoreUnavailable
from ray_tracking.stores.positions import where_of

#: The plain counts, as :mod:`ray_tracking.pipeline.formulas` takes them.
COUNTS = (
    "sent", "delivered", "opens", "unique_opens", "clicks", "unique_clicks", "replies",
    "unique_replies", "hard", "soft", "complaint", "suppression", "machine_opens",
    "machine_clicks", "first_event_at", "last_event_at",
)  # fmt: skip
#: Of a campaign that was never seen.
NOTHING: Mapping[str, Any] = {name: None if name.endswith("_at") else 0 for name in COUNTS}

#: The totals that are shown, of whatever campaign.
SHOWN = """
rollup_totals t LEFT JOIN rollup_generations g USING (campaign_id)
WHERE t.generation = coalesce(g.generation, 0)
"""
_TOTALS = f"SELECT t.campaign_id, {', '.join(f't.{name}' for name in COUNTS)} FROM {SHOWN}"
_CHOSEN = f"{_TOTALS} AND t.campaign_id = ANY($1)"
_ONE = f"""
SELECT {", ".join(COUNTS)} FROM rollup_totals
WHERE campaign_id = $1 AND generation = coalesce(
    (SELECT generation FROM rollup_generations WHERE campaign_id = $1), 0)
"""
_POSITIONS = "SELECT log_partition, log_lane, epoch, seq FROM rollup_positions"


class Rollups:
    """
    Reads totals. Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, schema: str, name: str) -> Rollups:
        """With a pool of its own; Postgres may be away."""
        return cls(await open_pool(url, schema, name, max_size=2))

    async def close(self) -> None:
        """Let go of every connection."""
        self._pool.terminate()

    async def totals(
        self, campaign_ids: Collection[str] | None = None
    ) -> tuple[dict[Where, EntryId], dict[str, dict[str, Any]]]:
        """
        The plain counts of campaigns, and the log positions up to which they count.

        Both from one snapshot: every event of the log up to a position that became a row is
        counted, and none behind it is.

        Args:
            campaign_ids: Of which campaigns; of all, if not given. One that is not among the
                answers has no events up to the positions.
        """
        try:
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                positions = await connection.fetch(_POSITIONS)
                if campaign_ids is None:
                    rows = await connection.fetch(_TOTALS)
                else:
                    rows = await connection.fetch(_CHOSEN, list(campaign_ids))
        except UNREADABLE as error:
            raise StoreUnavailable(str(error)) from error
        return (
            {where_of(row): EntryId(row["epoch"], row["seq"]) for row in positions},
            {row["campaign_id"]: {name: row[name] for name in COUNTS} for row in rows},
        )

    async def stats(self, campaign_id: str) -> Mapping[str, Any]:
        """The plain counts of one campaign; all zero where it was never seen."""
        try:
            row = await self._pool.fetchrow(_ONE, campaign_id)
        except UNREADABLE as error:
            raise StoreUnavailable(str(error)) from error
        return NOTHING if row is None else dict(row)

    async def uniques(self, campaign_ids: Collection[str]) -> dict[str, dict[str, int]]:
        """The unique counts alone, of these campaigns as far as they are counted."""
        _, totals = await self.totals(campaign_ids)
        return {
            campaign: {name: counts[name] for name in COUNTS if name.startswith("unique_")}
            for campaign, counts in totals.items()
        }
