"""Reading the figures of a campaign beyond its totals: each from the rows of a rollup alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.stores.cursor import encode_keys
from ray_tracking.stores.database import UNREADABLE
from ray_tracking.stores.failures import StoreUnavailable
from ray_tracking.stores.rollups import COUNTS, SHOWN

#: Of the generation that is shown of campaign $1.
_OF_CAMPAIGN = """
campaign_id = $1 AND generation = coalesce(
    (SELECT generation FROM rollup_generations WHERE campaign_id = $1), 0)
"""

# A bucket that the span begins in is shown as a whole.
_TIMELINE = f"""
SELECT bucket_start, array_agg(event_type) AS types, array_agg(events) AS events FROM rollup_buckets
WHERE {_OF_CAMPAIGN} AND bucket = $2 AND NOT is_machine AND events <> 0
  AND bucket_start >= coalesce(date_trunc($2, $3::timestamptz), '-infinity')
  AND bucket_start < coalesce($4::timestamptz, 'infinity')
  AND bucket_start > coalesce($5::timestamptz, '-infinity')
GROUP BY bucket_start ORDER BY bucket_start LIMIT $6
"""

_LINKS = f"""
SELECT link_url, link_id, clicks, unique_clicks, encode(link_key, 'hex') AS key FROM rollup_links
WHERE {_OF_CAMPAIGN} AND clicks > 0
  AND ($2::bigint IS NULL OR (clicks, link_key) < ($2, decode($3, 'hex')))
ORDER BY clicks DESC, link_key DESC LIMIT $4
"""

_GROUPS = f"""
SELECT name, sum(events)::bigint AS count FROM rollup_groups
WHERE {_OF_CAMPAIGN} AND kind = $2
GROUP BY name HAVING sum(events) > 0 ORDER BY count DESC, name LIMIT $3
"""

_CAMPAIGNS = f"""
SELECT t.campaign_id, {", ".join(f"t.{name}" for name in COUNTS)} FROM {SHOWN}
  AND t.campaign_id > coalesce($1, '') AND t.events > 0
ORDER BY t.campaign_id LIMIT $2
"""


class Span(NamedTuple):
    """A half-open span of the events' own times, open where it is None."""

    since: datetime | None = None
    until: datetime | None = None


class Figures:
    """
    Reads figures. Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def timeline(
        self, campaign_id: str, bucket: str, span: Span, *, limit: int, after: datetime | None
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """
        The buckets of a span in which something happened, in order of time: when each begins,
        and its types of events beside how many there are of each.

        Args:
            campaign_id: Of which campaign.
            bucket: ``minute``, ``hour`` or ``day``, in UTC.
            span: Which buckets: those that begin in it, and the one that it begins in.
            limit: How many at most.
            after: Only those that begin later.
        """
        rows = await self._fetch(_TIMELINE, campaign_id, bucket, *span, after, limit + 1)
        page = rows[:limit]
        more = len(rows) > limit
        return page, encode_keys(page[-1]["bucket_start"].isoformat()) if more else None

    async def links(
        self, campaign_id: str, *, limit: int, after: tuple[int, str] | None
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """The links that people clicked, those with the most clicks first."""
        rows = await self._fetch(_LINKS, campaign_id, *(after or (None, None)), limit + 1)
        page = rows[:limit]
        more = len(rows) > limit
        return page, encode_keys(page[-1]["clicks"], page[-1]["key"]) if more else None

    async def groups(self, campaign_id: str, kind: str, *, limit: int) -> Sequence[Any]:
        """
        Opens and clicks by people, as (name, count), the largest first.

        Args:
            campaign_id: Of which campaign.
            kind: By ``device`` or by ``country``; the name is empty where it is not known.
            limit: How many names at most.
        """
        return await self._fetch(_GROUPS, campaign_id, kind, limit)

    async def campaigns(
        self, *, limit: int, after: str | None
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """The plain counts of every campaign that has any, in the order of their ids."""
        rows = await self._fetch(_CAMPAIGNS, after, limit + 1)
        page = rows[:limit]
        return page, encode_keys(page[-1]["campaign_id"]) if len(rows) > limit else None

    async def _fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        async with answered():
            rows: Sequence[Any] = await self._pool.fetch(query, *arguments)
            return rows


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """Say :class:`StoreUnavailable` where Postgres is away."""
    try:
        yield
    except UNREADABLE as error:
        raise StoreUnavailable(str(error)) from error
