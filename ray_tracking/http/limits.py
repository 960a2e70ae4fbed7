"""Limits of one campaign over the API: what it may send, and letting it send more or less."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, Strict, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from ray_tracking.errors import InvalidEvent
from ray_tracking.http.asked import read_campaign, read_id, read_object
from ray_tracking.http.guard import needs
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.rate import CampaignLimits
from ray_tracking.pipeline.rows import iso_utc
from ray_tracking.stores.limits import MAX_CAMPAIGNS, LimitStore, Own

_Limit = Annotated[int, Strict(), Field(ge=1, le=1_000_000_000)]


class LimitsBody(TypedDict):
    """The body of ``PUT /campaigns/{id}/limits``; null, or left out: as the other campaigns."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    maxEventsPerWindow: NotRequired[_Limit | None]
    burstCapacity: NotRequired[_Limit | None]


_BODY = TypeAdapter(LimitsBody)


class Limits:
    """
    The calls about limits. Shards go by them within two seconds.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @property
    def _store(self) -> LimitStore:
        return self.ports.queries.limits

    async def one(self, request: Request) -> Response:
        """``GET``, ``PUT`` and ``DELETE /campaigns/{id}/limits``."""
        if request.method == "PUT":
            return await self._put(request)
        return await (self._delete if request.method == "DELETE" else self._show)(request)

    @needs("read")
    async def _show(self, request: Request) -> Response:
        campaign_id = read_id(request, "campaign_id")
        return self._answer(campaign_id, await self._store.find(campaign_id))

    @needs("admin")
    async def _put(self, request: Request) -> Response:
        campaign_id = read_campaign(request)
        limits = await _read_limits(request)
        own = await self._store.put(campaign_id, limits)
        if own is None:
            text = f"{MAX_CAMPAIGNS:,} campaigns have limits of their own already"
            raise HTTPException(409, text)
        return self._answer(campaign_id, own)

    @needs("admin")
    async def _delete(self, request: Request) -> Response:
        campaign_id = read_campaign(request)
        await self._store.delete(campaign_id)
        return self._answer(campaign_id, None)

    def _answer(self, campaign_id: str, own: Own | None) -> Response:
        settings = self.ports.settings
        common = {
            "maxEventsPerWindow": settings.max_events_per_window,
            "burstCapacity": settings.burst_capacity,
        }
        limits = own.limits if own else CampaignLimits()
        return JSONResponse(
            {
                "campaignId": campaign_id,
                "maxEventsPerWindow": limits.max_events or common["maxEventsPerWindow"],
                "burstCapacity": limits.burst or common["burstCapacity"],
                "rateLimitWindowMs": settings.rate_limit_window_ms,
                "default": common,
                "updatedAt": iso_utc(own.updated_at) if own else None,
            }
        )


async def _read_limits(request: Request) -> CampaignLimits:
    """
    What is asked for.

    Raises:
        RequestError: Naming each field that is wrong.
    """
    given = await read_object(request, _BODY, "the limits of a campaign")
    limits = CampaignLimits(given.get("maxEventsPerWindow"), given.get("burstCapacity"))
    if limits == CampaignLimits():
        text = "or burstCapacity must be given; DELETE takes both back"
        raise InvalidEvent([("maxEventsPerWindow", text)])
    return limits
