"""Where events come in, for ``/openapi.json``: the API, pixels and links."""

from __future__ import annotations

from ray_tracking.events import MAX_BATCH_EVENTS
from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.openapi_parts import (
    ENCODING,
    Object,
    answer,
    content,
    operation,
    parameter,
    refusals,
)
from ray_tracking.pipeline.receive import NDJSON

_INGEST_HEADERS = [
    parameter(
        "header",
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "Stands for the eventId where there is none; in a batch, with the item's index.",
    ),
    ENCODING,
]
_DURABLE = {"X-Tracking-Durable": {"$ref": "#/components/headers/X-Tracking-Durable"}}


def ingest_paths() -> Object:
    """Every route that takes events, and the one that makes links."""
    return {
        "/events": {"post": _single("sendEvent", "Send one event")},
        "/webhook/tracking": {"post": _single("sendEventToWebhook", "The same as /events")},
        "/events/batch": {"post": _batch()},
        "/tracking-links": {"post": _links()},
        "/pixel/{token}": _pixel("path", "token", "Pixel"),
        "/pixel": _pixel("query", "t", "PixelByQuery"),
        "/click/{token}": _click("path", "token", "Click"),
        "/click": _click("query", "t", "ClickByQuery"),
    }


def _single(operation_id: str, summary: str) -> Object:
    return operation(
        operation_id,
        "ingest",
        summary,
        "ingest",
        {
            "202": answer("Accepted, and durable.", "ProcessingResult", accepted=examples.ACCEPTED),
            "200": answer("A duplicate.", "ProcessingResult", duplicate=examples.DUPLICATE),
            **refusals(400, 405, 413, 415, 422, 429, 503),
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": content("Event", **examples.EVENTS)},
    )


def _batch() -> Object:
    body = content("Batch", **examples.BATCH_JSON)
    body[NDJSON] = {
        "schema": {"type": "string", "description": "One event a line."},
        "examples": {"lines": {"value": examples.BATCH_NDJSON}},
    }
    wholly = {
        "429": answer("Every item was over the rate.", "BatchResult", "Retry-After"),
        "503": answer("No item could be taken now.", "BatchResult", "Retry-After"),
    }
    return operation(
        "sendBatch",
        "ingest",
        f"Send 1 to {MAX_BATCH_EVENTS:,} events, each with its own fate",
        "ingest",
        {
            "200": answer("All are processed or duplicates.", "BatchResult"),
            "207": answer("Some were refused.", "BatchResult", partly=examples.PARTLY),
            **refusals(400, 405, 413, 415, 422),
            **wholly,
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": body},
    )


def _links() -> Object:
    return operation(
        "makeTrackingLinks",
        "ingest",
        "Make the pixel and the tracked links of one mail",
        "ingest",
        {
            "201": answer("The links.", "TrackingLinks"),
            **refusals(400, 405, 413, 415, 422),
        },
        parameters=[ENCODING],
        requestBody={
            "required": True,
            "content": content("LinkRequest", links=examples.LINK_REQUEST),
        },
    )


def _hit(name: str, summary: str, responses: Object, place: str, key: str) -> Object:
    text = "From POST /tracking-links." + (" With or without .gif." if "ixel" in name else "")
    parameters = [parameter(place, key, {"type": "string"}, text)]
    heads = {status: {k: v for k, v in answer.items() if k != "content"}
             for status, answer in responses.items()}  # fmt: skip
    responses, heads = responses | refusals(405), heads | refusals(405)
    return {
        "get": operation(f"get{name}", "hits", summary, None, responses, parameters=parameters),
        "head": operation(
            f"head{name}", "hits", f"{summary}; stored as a machine's", None, heads,
            parameters=parameters,
        ),
    }  # fmt: skip


def _pixel(place: str, key: str, name: str) -> Object:
    gif = {
        "description": "The pixel, whatever the token is and however the service is.",
        "headers": _DURABLE,
        "content": {"image/gif": {}},
    }
    return _hit(name, "An open; always a transparent pixel", {"200": gif}, place, key)


def _click(place: str, key: str, name: str) -> Object:
    location = {"Location": {"$ref": "#/components/headers/Location"}}
    responses = {
        "302": {"description": "To the link inside the token.", "headers": _DURABLE | location},
        "404": {
            "description": "The token is not one of ours.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
    }
    return _hit(name, "A click; leads to the link", responses, place, key)
