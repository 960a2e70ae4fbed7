"""Reading back over the API: the events of a campaign, and of one lead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import TYPES_BY_NAME, EventType
from ray_tracking.http.paging import database_away, page, read_page
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.formulas import lead_state
from ray_tracking.pipeline.receive import NDJSON
from ray_tracking.pipeline.rows import encode_json
from ray_tracking.stores.cursor import Cursor
from ray_tracking.stores.queries import EventFilter
from ray_tracking.stores.rows import StoreUnavailable


class Query:
    """
    The reading calls.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def events(self, request: Request) -> Response:
        """``GET /campaigns/{id}/events``: a page, or all of them as NDJSON."""
        self._ports.access.require(request.scope, "read")
        try:
            campaign_id = read_id(request, "campaign_id")
            chosen, limit, after = _read_parameters(request)
        except InvalidEvent as error:
            return JSONResponse(answer.invalid(error), 422)
        if NDJSON in request.headers.get("accept", ""):
            pages = self._ports.queries.stream_events(campaign_id, chosen)
            return await _stream(pages)
        try:
            items, cursor = await self._ports.queries.events(
                campaign_id, chosen, limit=limit, after=after
            )
        except StoreUnavailable:
            return database_away()
        return page(items, cursor)

    async def lead(self, request: Request) -> Response:
        """``GET /campaigns/{id}/leads/{leadId}``: what one lead has done, newest first."""
        self._ports.access.require(request.scope, "read")
        wrong: list[tuple[str, str]] = []
        try:
            campaign_id = read_id(request, "campaign_id")
            lead_id = read_id(request, "lead_id")
            limit, after = read_page(request.query_params, wrong)
            if wrong:
                raise InvalidEvent(wrong)
            counts = await self._ports.queries.lead(campaign_id, lead_id)
            items, cursor = await self._ports.queries.events(
                campaign_id, EventFilter(lead_id=lead_id), limit=limit, after=after
            )
        except InvalidEvent as error:
            return JSONResponse(answer.invalid(error), 422)
        except StoreUnavailable:
            return database_away()
        return JSONResponse(
            {
                "campaignId": campaign_id,
                "leadId": lead_id,
                "state": lead_state(counts),
                "items": items,
                "next": str(cursor) if cursor else None,
            }
        )


def read_id(request: Request, name: str) -> str:
    """
    An identifier in the path.

    Raises:
        InvalidEvent: If no text in Postgres can be it.
    """
    text: str = request.path_params[name]
    if "\0" in text:
        head, *tail = name.split("_")
        field = head + "".join(part.capitalize() for part in tail)
        raise InvalidEvent([(field, "must not contain control characters")])
    return text


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
    try:
        first: list[dict[str, Any]] = await anext(pages, [])
    except StoreUnavailable:
        return database_away()

    async def lines() -> AsyncIterator[bytes]:
        items: list[dict[str, Any]] | None = first
        while items:
            yield b"".join([encode_json(item) + b"\n" for item in items])
            items = await anext(pages, None)

    return StreamingResponse(lines(), media_type=NDJSON)
