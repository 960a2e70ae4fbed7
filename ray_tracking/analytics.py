"""
The figures of campaigns for people who embed us: the same as over the API, straight from
Postgres, without Ray and without a running service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ray_tracking.pipeline.formulas import (
    breakdown,
    campaign_stats,
    lead_state,
    link_item,
    timeline_item,
)

if TYPE_CHECKING:
    from ray_tracking.stores.queries import Queries

_PAGE = 1000
_MAX_GROUPS = 250


class EmailAnalyticsService:
    """
    Reads figures; every answer has the names and the shape of the API's.

    Every call raises :class:`~ray_tracking.stores.failures.StoreUnavailable` if Postgres does
    not answer.

    Args:
        database_url: Of Postgres, as in ``DATABASE_URL``.
        database_schema: Where the tables are.
    """

    def __init__(self, database_url: str, database_schema: str = "public") -> None:
        self._where = (database_url, database_schema)
        self._opened: Queries | None = None

    async def __aenter__(self) -> EmailAnalyticsService:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every connection; the next call opens others."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def campaign_stats(self, campaign_id: str) -> dict[str, Any]:
        """Totals, uniques and rates of one campaign; zeros for one never seen."""
        counts = await (await self._queries()).rollups.stats(campaign_id)
        return campaign_stats(campaign_id, counts, as_of=datetime.now(UTC))

    async def campaigns(self) -> AsyncIterator[dict[str, Any]]:
        """The same for every campaign, in the order of their ids."""
        figures = (await self._queries()).figures
        after: str | None = None
        while True:
            rows, following = await figures.campaigns(limit=_PAGE, after=after)
            for row in rows:
                yield campaign_stats(row["campaign_id"], row, as_of=datetime.now(UTC))
            if following is None:
                return
            after = rows[-1]["campaign_id"]

    async def timeline(
        self,
        campaign_id: str,
        bucket: str = "hour",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """
        Events by people, by type, in the buckets of a span of their own times.

        Args:
            campaign_id: Of which campaign.
            bucket: ``minute``, ``hour`` or ``day``, in UTC.
            since: The first bucket is the one that this is in.
            until: The last one begins before this.
        """
        from ray_tracking.stores.figures import Span

        figures = (await self._queries()).figures
        items: list[dict[str, Any]] = []
        after: datetime | None = None
        while True:
            rows, following = await figures.timeline(
                campaign_id, bucket, Span(since, until), limit=_PAGE, after=after
            )
            items += [timeline_item(row) for row in rows]
            if following is None:
                return items
            after = rows[-1]["bucket_start"]

    async def links(self, campaign_id: str, limit: int = _PAGE) -> list[dict[str, Any]]:
        """The links that people clicked, those with the most clicks first."""
        rows, _ = await (await self._queries()).figures.links(campaign_id, limit=limit, after=None)
        return [link_item(row) for row in rows]

    async def breakdown(self, campaign_id: str) -> dict[str, Any]:
        """Devices, countries, and why mail came back."""
        queries = await self._queries()
        devices, countries = [
            await queries.figures.groups(campaign_id, kind, limit=_MAX_GROUPS)
            for kind in ("device", "country")
        ]
        counts = await queries.rollups.stats(campaign_id)
        return breakdown(campaign_id, counts, devices, countries)

    async def lead(self, campaign_id: str, lead_id: str) -> dict[str, Any]:
        """What one lead has done in a campaign."""
        return lead_state(await (await self._queries()).lead(campaign_id, lead_id))

    async def verify(self, campaign_id: str) -> dict[str, Any]:
        """All figures of a campaign against a recount of its rows."""
        return (await (await self._queries()).verifier.check(campaign_id)).answer()

    async def _queries(self) -> Queries:
        if self._opened is None:
            from ray_tracking.stores.queries import Queries

            self._opened = await Queries.open(*self._where)
        return self._opened
