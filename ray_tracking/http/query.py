"""Reading back over the API: the events of a campaign, and of one lead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import TYPES_BY_NAME, EventType
from ray_tracking.http.asked import read_id
from ray_tracking.http.guard import needs
from ray_tracking.http.paging import page, read_page
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.formulas import lead_state
from ray_tracking.pipeline.receive import NDJSON
from ray_tracking.pipeline.rows import encode_json
from ray_tracking.stores.cursor import Cursor
from ray_tracking.stores.queries import EventFilter


class Query:
    """
    The reading calls.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @needs("read")
    async def events(self, request: Request) -> Response:
        """``GET /campaigns/{id}/events``: a page, or all of them as NDJSON."""
        campaign_id = read_id(request, "campaign_id")
        chosen, limit, after = _read_parameters(request)
        if NDJSON in request.headers.get("accept", ""):
            return await _stream(self.ports.queries.stream_events(campaign_id, chosen))
        items, cursor = await self.ports.queries.events(
            campaign_id, chosen, limit=limit, after=after
        )
        return page(items, cursor)

    @needs("read")
    async def lead(self, request: Request) -> Response:
        """``GET /campaigns/{id}/leads/{leadId}``: what one lead has done, newest first."""
        wrong: list[tuple[str, str]] = []
        campaign_id = read_id(request, "campaign_id")
        lead_id = read_id(request, "lead_id")
        limit, after = read_page(request.query_params, wrong)
        if wrong:
            raise InvalidEvent(wrong)
        counts = await self.ports.queries.lead(campaign_id, lead_id)
        items, cursor = await self.ports.queries.events(
            campaign_id, EventFilter(lead_id=lead_id), limit=limit, after=after
        )
        return JSONResponse(
            {
                "campaignId": campaign_id,
                "leadId": lead_id,
                "state": lead_state(counts),
                "items": items,
                "next": str(cursor) if cursor else None,
            }
        )


def _read_parameters(request: Request) -> tuple[EventFilter, int, Cursor | None]:
    """
    The query parameters.

    Raises:
        InvalidEvent: Naming each that is wrong.
    """
    given = request.query_params
    wrong: list[tuple[str, str]] = []
    event_type = given.get("type")
    if event_type is not None and event_type not in TYPES_BY_NAME:
        wrong.append(("type", f"is not one of {', '.join(EventType)}"))
    span = read_span(given, wrong)
    limit, after = read_page(given, wrong)
    if wrong:
        raise InvalidEvent(wrong)
    return EventFilter(event_type, *span), limit, after


def read_span(
    given: Mapping[str, str], wrong: list[tuple[str, str]]
) -> tuple[datetime | None, datetime | None]:
    """The times ``from`` and ``to``; ``wrong`` gets an entry for each that is none."""
    return _read_time(given.get("from"), "from", wrong), _read_time(given.get("to"), "to", wrong)


def _read_time(text: str | None, name: str, wrong: list[tuple[str, str]]) -> datetime | None:
    if text is None:
        return None
    try:
        # A plus sign in a query string that nobody escaped arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    wrong.append((name, "must be ISO 8601 with an offset or Z, such as 2026-11-23T19:00:00Z"))
    return None


async def _stream(pages: AsyncIterator[list[dict[str, Any]]]) -> Response:
    """The first page decides the status; the rest follows as it is read."""
    first: list[dict[str, Any]] = await anext(pages, [])

    async def lines() -> AsyncIterator[bytes]:
        items: list[dict[str, Any]] | None = first
        while items:
            yield b"".join([encode_json(item) + b"\n" for item in items])
            items = await anext(pages, None)

    return StreamingResponse(lines(), media_type=NDJSON)
