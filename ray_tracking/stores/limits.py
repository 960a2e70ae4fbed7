"""Limits of single campaigns: who has some of their own, as operators have set them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.pipeline.rate import CampaignLimits
from ray_tracking.stores.database import open_pool
from ray_tracking.stores.figures import answered

#: All of them are in the memory of each shard and writer.
MAX_CAMPAIGNS = 10_000

_BUMP = "WITH bumped AS (UPDATE campaign_limits_version SET version = version + 1)"
_PUT = f"""
{_BUMP}
INSERT INTO campaign_limits (campaign_id, max_events_per_window, burst_capacity)
SELECT $1, $2, $3 WHERE (SELECT count(*) FROM campaign_limits WHERE campaign_id <> $1) < $4
ON CONFLICT (campaign_id) DO UPDATE SET
  max_events_per_window = excluded.max_events_per_window,
  burst_capacity = excluded.burst_capacity, updated_at = now()
RETURNING updated_at
"""
_DELETE = f"{_BUMP} DELETE FROM campaign_limits WHERE campaign_id = $1"
_COLUMNS = "campaign_id, max_events_per_window, burst_capacity, updated_at"


class Own(NamedTuple):
    """The limits of a campaign, and since when."""

    limits: CampaignLimits
    updated_at: datetime


class LimitStore:
    """
    Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, schema: str) -> LimitStore:
        """With a pool of its own; Postgres may be away."""
        return cls(await open_pool(url, schema, "ray-tracking limits", max_size=1))

    async def close(self) -> None:
        """Let go of every connection."""
        self._pool.terminate()

    async def find(self, campaign_id: str) -> Own | None:
        """What a campaign has of its own."""
        query = f"SELECT {_COLUMNS} FROM campaign_limits WHERE campaign_id = $1"
        async with answered():
            row = await self._pool.fetchrow(query, campaign_id)
        return None if row is None else Own(_limits(row), row["updated_at"])

    async def put(self, campaign_id: str, limits: CampaignLimits) -> Own | None:
        """Set them, in the place of those before; None if too many campaigns have some."""
        async with answered():
            at = await self._pool.fetchval(
                _PUT, campaign_id, limits.max_events, limits.burst, MAX_CAMPAIGNS
            )
        return None if at is None else Own(limits, at)

    async def delete(self, campaign_id: str) -> None:
        """Let a campaign have those of the others again."""
        async with answered():
            await self._pool.execute(_DELETE, campaign_id)

    async def version(self) -> int:
        """Another one after each change."""
        async with answered():
            number: int = await self._pool.fetchval("SELECT version FROM campaign_limits_version")
        return number

    async def all(self) -> dict[str, CampaignLimits]:
        """Of every campaign that has some."""
        async with answered():
            rows = await self._pool.fetch(f"SELECT {_COLUMNS} FROM campaign_limits")
        return {row["campaign_id"]: _limits(row) for row in rows}


def _limits(row: Any) -> CampaignLimits:
    return CampaignLimits(row["max_events_per_window"], row["burst_capacity"])
