"""The figures of campaigns over the API: each is read from a rollup, never from the rows."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.errors import InvalidEvent
from ray_tracking.http.asked import read_id
from ray_tracking.http.guard import needs
from ray_tracking.http.paging import MAX_LIMIT, page, read_keys, read_limit
from ray_tracking.http.ports import Ports
from ray_tracking.http.query import read_span
from ray_tracking.pipeline.formulas import (
    breakdown,
    campaign_stats,
    link_item,
    timeline_item,
)
from ray_tracking.stores.figures import Span
from ray_tracking.stores.folding import BUCKETS

#: How many devices, and how many countries, a breakdown names.
MAX_GROUPS = 250


class Figures:
    """
    The calls about figures.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @needs("read")
    async def stats(self, request: Request) -> Response:
        """``GET /campaigns/{id}/stats``."""
        campaign_id = read_id(request, "campaign_id")
        counts = await self.ports.queries.rollups.stats(campaign_id)
        return JSONResponse(campaign_stats(campaign_id, counts, as_of=datetime.now(UTC)))

    @needs("read")
    async def campaigns(self, request: Request) -> Response:
        """``GET /campaigns``."""
        wrong: list[tuple[str, str]] = []
        limit = read_limit(request.query_params, wrong)
        after = read_keys(request.query_params, wrong, str)
        if wrong:
            raise InvalidEvent(wrong)
        rows, following = await self.ports.queries.figures.campaigns(
            limit=limit, after=after[0] if after else None
        )
        now = datetime.now(UTC)
        return page([campaign_stats(row["campaign_id"], row, as_of=now) for row in rows], following)

    @needs("read")
    async def timeline(self, request: Request) -> Response:
        """``GET /campaigns/{id}/timeline``."""
        campaign_id = read_id(request, "campaign_id")
        given = request.query_params
        wrong: list[tuple[str, str]] = []
        bucket = given.get("bucket", "hour")
        if bucket not in BUCKETS:
            wrong.append(("bucket", f"is not one of {', '.join(BUCKETS)}"))
        span = Span(*read_span(given, wrong))
        limit = read_limit(given, wrong, MAX_LIMIT)
        after = _read_moment(read_keys(given, wrong, str), wrong)
        if wrong:
            raise InvalidEvent(wrong)
        rows, following = await self.ports.queries.figures.timeline(
            campaign_id, bucket, span, limit=limit, after=after
        )
        items = [timeline_item(row) for row in rows]
        return page(items, following)

    @needs("read")
    async def links(self, request: Request) -> Response:
        """``GET /campaigns/{id}/links``: those with the most clicks first."""
        campaign_id = read_id(request, "campaign_id")
        wrong: list[tuple[str, str]] = []
        limit = read_limit(request.query_params, wrong)
        after = _read_place(read_keys(request.query_params, wrong, int, str), wrong)
        if wrong:
            raise InvalidEvent(wrong)
        rows, following = await self.ports.queries.figures.links(
            campaign_id, limit=limit, after=after
        )
        return page([link_item(row) for row in rows], following)

    @needs("read")
    async def breakdown(self, request: Request) -> Response:
        """``GET /campaigns/{id}/breakdown``: devices, countries, and bounces."""
        campaign_id = read_id(request, "campaign_id")
        counts = await self.ports.queries.rollups.stats(campaign_id)
        devices, countries = [
            await self.ports.queries.figures.groups(campaign_id, kind, limit=MAX_GROUPS)
            for kind in ("device", "country")
        ]
        return JSONResponse(breakdown(campaign_id, counts, devices, countries))

    @needs("read")
    async def verify(self, request: Request) -> Response:
        """``GET /campaigns/{id}/verify``: the figures against a recount of the rows."""
        campaign_id = read_id(request, "campaign_id")
        return JSONResponse((await self.ports.queries.verifier.check(campaign_id)).answer())


def _read_moment(keys: tuple[str, ...] | None, wrong: list[tuple[str, str]]) -> datetime | None:
    try:
        return datetime.fromisoformat(keys[0]).astimezone(UTC) if keys else None
    except (ValueError, OverflowError):
        wrong.append(("after", "is not a cursor that this API gave out"))
        return None


def _read_place(
    keys: tuple[int, str] | None, wrong: list[tuple[str, str]]
) -> tuple[int, str] | None:
    try:
        if keys is not None:
            bytes.fromhex(keys[1])
            if not 0 <= keys[0] < 2**63:
                raise ValueError(keys)
        return keys
    except ValueError:
        wrong.append(("after", "is not a cursor that this API gave out"))
        return None
