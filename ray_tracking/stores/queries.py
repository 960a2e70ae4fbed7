"""Reading back: the events of a campaign."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.pipeline.rows import event_data, iso_utc
from ray_tracking.stores.cursor import Cursor, cut_page
from ray_tracking.stores.database import AWAY, open_pool
from ray_tracking.stores.dead_letters import DeadLetterStore
from ray_tracking.stores.rollups import Rollups
from ray_tracking.stores.rows import StoreUnavailable

_EVENTS = """
SELECT event_id, event_type, campaign_id, lead_id, email_id, account_id, client_event_id,
       occurred_at, received_at, link_url, bounce_type, ip_address, user_agent,
       device, location, custom, details
FROM events
WHERE campaign_id = $1
  AND ($2::text IS NULL OR event_type = $2)
  AND ($3::timestamptz IS NULL OR occurred_at >= $3)
  AND ($4::timestamptz IS NULL OR occurred_at < $4)
  AND ($5::timestamptz IS NULL OR (received_at, event_id) < ($5, $6::uuid))
ORDER BY received_at DESC, event_id DESC
"""


class EventFilter(NamedTuple):
    """Which of a campaign's events: of a type, in a half-open span of their own times."""

    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Queries:
    """
    Reads for the API.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        #: On the same connections.
        self.dead_letters = DeadLetterStore(pool)
        self.rollups = Rollups(pool)

    @classmethod
    async def open(cls, url: str, schema: str) -> Queries:
        """With a pool of its own; Postgres may be away."""
        return cls(await open_pool(url, schema, "ray-tracking api", max_size=4))

    async def close(self) -> None:
        """Let go of every connection."""
        self._pool.terminate()

    async def events(
        self, campaign_id: str, chosen: EventFilter, *, limit: int, after: Cursor | None
    ) -> tuple[list[dict[str, Any]], Cursor | None]:
        """
        One page of a campaign's events, newest first, and where the next begins.

        Raises:
            StoreUnavailable: If Postgres does not answer.
        """
        at, event_id = after or (None, None)
        try:
            rows = await self._pool.fetch(
                _EVENTS + " LIMIT $7", campaign_id, *chosen, at, event_id, limit + 1
            )
        except AWAY as error:
            raise StoreUnavailable(str(error)) from error
        page, cursor = cut_page(rows, limit, "received_at", "event_id")
        return [_wire(row) for row in page], cursor

    async def stream_events(
        self, campaign_id: str, chosen: EventFilter
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """All of a campaign's events, newest first, some hundred at a time."""
        after: Cursor | None = None
        while True:
            page, after = await self.events(campaign_id, chosen, limit=500, after=after)
            if page:
                yield page
            if after is None:
                return


def _wire(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eventId": row["client_event_id"] or str(row["event_id"]),
        "eventType": row["event_type"],
        "eventData": event_data(row),
        "receivedAt": iso_utc(row["received_at"]),
    }
