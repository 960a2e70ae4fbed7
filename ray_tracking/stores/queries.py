"""Reading back: the events of a campaign."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.pipeline.rows import event_data, iso_utc
from ray_tracking.stores.cursor import Cursor, cut_page
from ray_tracking.stores.database import open_pool
from ray_tracking.stores.dead_letters import DeadLetterStore
from ray_tracking.stores.erase import Leads
from ray_tracking.stores.figures import Figures, answered
from ray_tracking.stores.limits import LimitStore
from ray_tracking.stores.replays import ReplayStore
from ray_tracking.stores.rollups import Rollups
from ray_tracking.stores.verify import Verifier

#: A page, or the figures of a campaign; what counts rows says itself how long it may take.
_ANSWER_WITHIN_S = 10

_EVENTS = """
SELECT event_id, event_type, campaign_id, lead_id, email_id, account_id, client_event_id,
       occurred_at, received_at, link_url, bounce_type, ip_address, user_agent,
       device, location, custom, details
FROM events WHERE
"""
_NEWEST_FIRST = "ORDER BY received_at DESC, event_id DESC"

_LEAD_COUNTS = """
SELECT
  count(*) FILTER (WHERE human AND event_type = 'EMAIL_SENT') AS sent,
  count(*) FILTER (WHERE human AND event_type = 'EMAIL_DELIVERED') AS delivered,
  count(*) FILTER (WHERE human AND event_type = 'EMAIL_OPEN') AS opens,
  count(*) FILTER (WHERE human AND event_type = 'LINK_CLICK') AS clicks,
  count(*) FILTER (WHERE human AND event_type = 'EMAIL_REPLY') AS replies,
  count(*) FILTER (WHERE bounce_type = 'hard') AS hard,
  count(*) FILTER (WHERE bounce_type = 'soft') AS soft,
  count(*) FILTER (WHERE bounce_type = 'complaint') AS complaint,
  count(*) FILTER (WHERE bounce_type = 'suppression') AS suppression,
  count(*) FILTER (WHERE NOT human AND event_type = 'EMAIL_OPEN') AS machine_opens,
  count(*) FILTER (WHERE NOT human AND event_type = 'LINK_CLICK') AS machine_clicks,
  min(occurred_at) AS first_event_at, max(occurred_at) AS last_event_at
FROM (SELECT *, agent IS DISTINCT FROM 'machine' AS human
      FROM events WHERE campaign_id = $1 AND lead_id = $2) e
"""


class EventFilter(NamedTuple):
    """Which of a campaign's events: of a type, in a half-open span of their own times, a lead's."""

    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    lead_id: str | None = None


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
        self.figures = Figures(pool)
        self.verifier = Verifier(pool)
        self.replays = ReplayStore(pool)
        self.leads = Leads(pool)
        self.limits = LimitStore(pool)

    @classmethod
    async def open(cls, url: str, schema: str) -> Queries:
        """With a pool of its own; Postgres may be away."""
        pool = await open_pool(url, schema, "ray-tracking api", 4, _ANSWER_WITHIN_S)
        return cls(pool)

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
        where, arguments = _conditions(campaign_id, chosen, after)
        query = f"{_EVENTS} {where} {_NEWEST_FIRST} LIMIT ${len(arguments) + 1}"
        async with answered():
            rows = await self._pool.fetch(query, *arguments, limit + 1)
        page, cursor = cut_page(rows, limit, "received_at", "event_id")
        return [_wire(row) for row in page], cursor

    async def lead(self, campaign_id: str, lead_id: str) -> Mapping[str, Any]:
        """The plain counts of one lead's events in a campaign, from the rows."""
        async with answered():
            row = await self._pool.fetchrow(_LEAD_COUNTS, campaign_id, lead_id)
        assert row is not None, "an aggregate has one row"
        return dict(row)

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


def _conditions(
    campaign_id: str, chosen: EventFilter, after: Cursor | None
) -> tuple[str, list[Any]]:
    """
    What is asked for, and no more: a condition that may be absent would keep the index from
    being read from where a page begins.
    """
    asked = {
        "campaign_id = {}": campaign_id,
        "lead_id = {}": chosen.lead_id,
        "event_type = {}": chosen.event_type,
        "occurred_at >= {}": chosen.since,
        "occurred_at < {}": chosen.until,
    }
    given = {text: value for text, value in asked.items() if value is not None}
    conditions = [text.format(f"${number}") for number, text in enumerate(given, 1)]
    arguments: list[Any] = list(given.values())
    if after is not None:
        conditions.append(f"(received_at, event_id) < (${len(given) + 1}, ${len(given) + 2})")
        arguments += after
    return " AND ".join(conditions), arguments


def _wire(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eventId": row["client_event_id"] or str(row["event_id"]),
        "eventType": row["event_type"],
        "eventData": event_data(row),
        "receivedAt": iso_utc(row["received_at"]),
    }
