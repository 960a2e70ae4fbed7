"""Replays over the API: ask for one, see how far it is, stop it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, Strict, StringConstraints, TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from ray_tracking.errors import InvalidEvent, Unavailable
from ray_tracking.events import EventType, Identifier
from ray_tracking.http.asked import read_object
from ray_tracking.http.guard import needs
from ray_tracking.http.paging import page, read_keys, read_limit
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.replay import MAX_BATCH_SIZE, ReplayRequest, ReplayStatus, show
from ray_tracking.pipeline.validate import read_moment
from ray_tracking.stores.cursor import encode_keys
from ray_tracking.stores.replays import Estimate, ReplayStore

_RETRY_AFTER_S = 10

Moment = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64),
    Field(description="ISO 8601 with an offset or Z.", json_schema_extra={"format": "date-time"}),
]


class ReplayOptions(TypedDict):
    """How a replay is done."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    eventTypes: NotRequired[Annotated[list[EventType], Field(min_length=1)] | None]
    batchSize: NotRequired[Annotated[int, Strict(), Field(ge=1, le=MAX_BATCH_SIZE)] | None]
    reprocessAnalytics: NotRequired[Annotated[bool, Strict()] | None]
    broadcastUpdates: NotRequired[Annotated[bool, Strict()] | None]


class ReplayBody(TypedDict):
    """The body of ``POST /replays``."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    campaignId: Identifier
    fromTimestamp: Moment
    toTimestamp: Moment
    options: NotRequired[ReplayOptions | None]


_BODY = TypeAdapter(ReplayBody)


class Replays:
    """
    The calls about replays.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @property
    def _store(self) -> ReplayStore:
        return self.ports.queries.replays

    @needs("admin")
    async def many(self, request: Request) -> Response:
        """``GET /replays``, the newest first, and ``POST /replays``."""
        if request.method == "POST":
            return await self._submit(request)
        wrong: list[tuple[str, str]] = []
        limit = read_limit(request.query_params, wrong)
        after = _read_place(read_keys(request.query_params, wrong, str, str), wrong)
        if wrong:
            raise InvalidEvent(wrong)
        rows = await self._store.page(limit=limit + 1, after=after)
        shown, last = rows[:limit], None
        if len(rows) > limit:
            last = encode_keys(shown[-1]["created_at"].isoformat(), shown[-1]["id"])
        return page([show(row) for row in shown], last)

    @needs("admin")
    async def one(self, request: Request) -> Response:
        """``GET /replays/{id}``, and ``DELETE``, which stops it."""
        replay = await self._find(request)
        if request.method != "DELETE":
            return JSONResponse(show(replay))
        if not await self._store.end(replay["id"], ReplayStatus.STOPPED):
            raise HTTPException(409, f"the replay is {replay['status']} already")
        if self.ports.jobs is not None:
            await self.ports.jobs.stop(replay)
        return JSONResponse({"success": True, **show(await self._find(request))})

    async def _submit(self, request: Request) -> Response:
        asked = await _read_request(request)
        replay_id = _new_id(request.headers.get("idempotency-key"))
        if (known := await self._store.find(replay_id)) is not None:
            return _accepted(known, "It was asked for before.")
        if self.ports.jobs is None:
            return _no_jobs("this service has no Ray jobs")
        estimate = await self._store.estimate(asked)
        if estimate.gone and not estimate.events:
            raise HTTPException(409, _gone(estimate, self.ports.settings.raw_retention_days))
        await self._store.create(replay_id, asked, estimate.events)
        replay = await self._store.find(replay_id)
        assert replay is not None, "it was just created"
        try:
            await self.ports.jobs.submit(replay)
        except Unavailable as error:
            await self._store.end(replay_id, ReplayStatus.FAILED, str(error))
            return _no_jobs(str(error))
        message = f"Replaying about {estimate.events:,} events."
        if estimate.gone:
            message += " " + _gone(estimate, self.ports.settings.raw_retention_days)
        return _accepted(replay, message)

    async def _find(self, request: Request) -> Mapping[str, Any]:
        replay_id = request.path_params["replay_id"]
        replay = None if "\0" in replay_id else await self._store.find(replay_id)
        if replay is None:
            raise HTTPException(404)
        return replay


async def _read_request(request: Request) -> ReplayRequest:
    """
    What is asked for.

    Raises:
        RequestError: Naming each field that is wrong.
    """
    asked = await read_object(request, _BODY, "a replay")
    wrong: list[tuple[str, str]] = []
    since = read_moment(asked["fromTimestamp"], "fromTimestamp", wrong)
    until = read_moment(asked["toTimestamp"], "toTimestamp", wrong)
    if since is None or until is None:
        raise InvalidEvent(wrong)
    if since >= until:
        raise InvalidEvent([("toTimestamp", "must be later than fromTimestamp")])
    if "\0" in asked["campaignId"]:
        raise InvalidEvent([("campaignId", "must not contain control characters")])
    options: dict[str, Any] = {
        name: value for name, value in (asked.get("options") or {}).items() if value is not None
    }
    types = options.get("eventTypes")
    return ReplayRequest(
        campaign_id=asked["campaignId"],
        since=since,
        until=until,
        event_types=tuple(dict.fromkeys(kind.value for kind in types)) if types else None,
        batch_size=options.get("batchSize", 1000),
        reprocess_analytics=options.get("reprocessAnalytics", True),
        broadcast_updates=options.get("broadcastUpdates", False),
    )


def _new_id(idempotency_key: str | None) -> str:
    """The same key is the same replay, however often it is sent."""
    if idempotency_key is None:
        return f"replay-{os.urandom(8).hex()}"
    return f"replay-{hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]}"


def _read_place(
    keys: tuple[str, str] | None, wrong: list[tuple[str, str]]
) -> tuple[datetime, str] | None:
    try:
        return (datetime.fromisoformat(keys[0]).astimezone(UTC), keys[1]) if keys else None
    except (ValueError, OverflowError):
        wrong.append(("after", "is not a cursor that this API gave out"))
        return None


def _gone(estimate: Estimate, days: int) -> str:
    return (
        f"About {estimate.gone:,} events of this span are no longer there "
        f"(raw_retention_days is {days}); their sums are kept as they are."
    )


def _accepted(replay: Mapping[str, Any], message: str) -> Response:
    body = {
        "success": True,
        "replayJobId": replay["id"],
        "estimatedEvents": replay["estimated_events"],
        "message": message,
    }
    return JSONResponse(body, 202)


def _no_jobs(reason: str) -> Response:
    text = f"A replay is a Ray job, and {reason}. 'ray-tracking replay' does without."
    body = {"success": False, "error": text, "retryAfter": _RETRY_AFTER_S}
    return JSONResponse(body, 503, {"Retry-After": str(_RETRY_AFTER_S)})
