"""What a request asks for: ids in its path, and a body of JSON."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import MAX_ID_CHARS
from ray_tracking.http.asgi import read_decoded
from ray_tracking.pipeline.receive import JSON, MAX_BODY_BYTES, media_type, parse_json
from ray_tracking.pipeline.validate import explain, read_identifier

T = TypeVar("T")


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


def read_campaign(request: Request) -> str:
    """
    The campaign in the path, as an event could name it.

    Raises:
        InvalidEvent: If none could.
    """
    campaign_id = read_identifier(request.path_params["campaign_id"])
    if campaign_id is None:
        text = f"must be 1 to {MAX_ID_CHARS} characters, none of control"
        raise InvalidEvent([("campaignId", text)])
    return campaign_id


async def read_object(request: Request, adapter: TypeAdapter[T], what: str) -> T:
    """
    The body.

    Args:
        adapter: What it must be.
        what: The thing that has its fields.

    Raises:
        RequestError: Naming each field that is wrong.
    """
    body = await read_decoded(request.scope, request.receive, MAX_BODY_BYTES)
    media_type(request.headers.get("content-type"), (JSON,))
    value = parse_json(body)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InvalidEvent(explain(error, what)) from None
