"""
``/openapi.json``: OpenAPI 3.1 of what this service answers, from the models themselves.

To add a route: an entry in :func:`_paths`, and its answer in
:mod:`ray_tracking.http.openapi_answers`. A test refuses a route that is missing here,
and one that is here and not answered.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from ray_tracking import __version__
from ray_tracking.events import MAX_BATCH_EVENTS, MODELS, EventType, Metadata
from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.openapi_answers import ANSWERS, ref
from ray_tracking.http.query import DEFAULT_LIMIT, MAX_LIMIT
from ray_tracking.http.tracking import LinkRequest
from ray_tracking.pipeline.receive import JSON, NDJSON

_Object = dict[str, Any]

_ABOUT = """\
Takes every event of an email campaign, stores each exactly once, and shows it live.

A 2xx to an API call means that the event is durable. On 429 and 503, and where there
was no answer, send it again with the same `eventId`: it is stored once. Unknown fields
are refused; your own data belongs into `customData` (at most 16 KiB, 8 levels).
Where the service has no API keys, it asks for none and listens on loopback only.
"""
_TAGS = {
    "ingest": "Events over the API.",
    "hits": "Pixels and tracked links, as mail clients fetch them.",
    "reading": "Campaigns, from the stored rows.",
    "service": "How the service is.",
}
_KEY_LENGTH = {"type": "string", "minLength": 1, "maxLength": 128}


def document(base_url: str) -> dict[str, Any]:
    """
    The whole description.

    Args:
        base_url: Where the service is, as clients see it.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ray-tracking",
            "version": __version__,
            "summary": "Event tracking for email campaigns.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "headers": _HEADERS,
            "responses": _responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}
            },
        },
    }


def _schemas() -> _Object:
    """The models, an event of each type around them, and the answers."""
    models = [*dict.fromkeys(MODELS.values()), Metadata, LinkRequest]
    _, generated = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models],
        ref_template="#/components/schemas/{model}",
    )
    found: _Object = {name: _plain(schema) for name, schema in generated["$defs"].items()}
    for kind, model in MODELS.items():
        found[_event_name(kind)] = _event(kind, model.__name__)
    names = {kind.value: ref(_event_name(kind))["$ref"] for kind in MODELS}
    found["Event"] = {
        "oneOf": [{"$ref": target} for target in names.values()],
        "discriminator": {"propertyName": "eventType", "mapping": names},
    }
    items = {"type": "array", "items": ref("Event"), "minItems": 1, "maxItems": MAX_BATCH_EVENTS}
    found["Batch"] = {
        "oneOf": [
            {
                "type": "object",
                "properties": {"events": items},
                "required": ["events"],
                "additionalProperties": False,
            },
            items,
        ]
    }
    return dict(sorted((found | ANSWERS).items()))


def _plain(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the names in another spelling."""
    if isinstance(schema, dict):
        named = schema.get("properties", {})
        plain = {key: _plain(value) for key, value in schema.items() if key != "title"}
        if named:
            plain["properties"] = {name: _plain(value) for name, value in named.items()}
        return plain
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _event_name(kind: EventType) -> str:
    return "".join(part.capitalize() for part in kind.value.split("_")) + "Event"


def _event(kind: EventType, model: str) -> _Object:
    return {
        "type": "object",
        "properties": {
            "eventType": {"const": kind.value},
            "eventData": ref(model),
            "data": {**ref(model), "description": "Another name of eventData."},
            "metadata": {"anyOf": [ref("Metadata"), {"type": "null"}]},
        },
        "required": ["eventType"],
        "oneOf": [{"required": ["eventData"]}, {"required": ["data"]}],
        "additionalProperties": False,
    }


def _content(schema: str, **shown: Any) -> _Object:
    media: _Object = {"schema": ref(schema)}
    if shown:
        media["examples"] = {name: {"value": value} for name, value in shown.items()}
    return {JSON: media}


def _answer(text: str, schema: str, *headers: str, **shown: Any) -> _Object:
    answer: _Object = {"description": text, "content": _content(schema, **shown)}
    if headers:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return answer


_HEADERS: _Object = {
    "Retry-After": {
        "description": "Seconds to wait; never longer than an eventId is remembered.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Tracking-Durable": {
        "description": "1 when the event was durable before this answer. Absent when the answer "
        "could not wait any longer; the event is then still on its way.",
        "schema": {"const": "1"},
    },
    "WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}},
    "Allow": {"description": "The methods that are answered.", "schema": {"type": "string"}},
    "Location": {
        "description": "The link, byte for byte as it was given.",
        "schema": {"type": "string", "format": "uri"},
    },
}


def _responses() -> _Object:
    """The refusals, by status: each is the same wherever it occurs."""
    return {
        "400": _answer("The body cannot be read.", "Error"),
        "401": _answer("No key, or an unknown one.", "Error", "WWW-Authenticate"),
        "403": _answer("The key lacks the scope.", "Error"),
        "405": _answer("Another method.", "Error", "Allow"),
        "413": _answer("The body is too large, or the batch has too many events.", "Error"),
        "415": _answer("A body of another type; the text names the header to send.", "Error"),
        "422": _answer("Something is not valid.", "Invalid", invalid=examples.INVALID),
        "429": _answer("Over the campaign's rate.", "ComeAgain", "Retry-After"),
        "503": _answer("Full, or out of reach. Come again.", "ComeAgain", "Retry-After"),
    }


def _refusals(*statuses: int) -> _Object:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _operation(
    operation_id: str, tag: str, summary: str, scope: str | None, responses: _Object, **more: Any
) -> _Object:
    if scope is not None:
        responses = responses | _refusals(401, 403)
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [] if scope is None else [{"bearer": [scope]}],
        **more,
        "responses": dict(sorted(responses.items())),
    }


def _parameter(place: str, name: str, schema: _Object, text: str = "") -> _Object:
    parameter: _Object = {"name": name, "in": place, "schema": schema}
    if place == "path":
        parameter["required"] = True
    return parameter | ({"description": text} if text else {})


def _paths() -> _Object:
    campaign = _parameter("path", "campaign_id", {"type": "string"})
    return {
        "/events": {"post": _single("sendEvent", "Send one event")},
        "/webhook/tracking": {"post": _single("sendEventToWebhook", "The same as /events")},
        "/events/batch": {"post": _batch()},
        "/tracking-links": {"post": _links()},
        "/pixel/{token}": _pixel("path", "token", "Pixel"),
        "/pixel": _pixel("query", "t", "PixelByQuery"),
        "/click/{token}": _click("path", "token", "Click"),
        "/click": _click("query", "t", "ClickByQuery"),
        "/campaigns/{campaign_id}/stats": {
            "get": _operation(
                "campaignStats",
                "reading",
                "A campaign's figures; zeros for one never seen",
                "read",
                {"200": _answer("The figures.", "CampaignStats"), **_refusals(405, 503)},
                parameters=[campaign],
            )
        },
        "/campaigns/{campaign_id}/events": {"get": _campaign_events(campaign)},
        "/livez": {"get": _text("livez", "Is it alive")},
        "/readyz": {"get": _text("readyz", "Does it take events", why_not="Why not.")},
        "/health/tracking": {"get": _health()},
        "/openapi.json": {"get": _json("openapi", "This description")},
        "/-/healthz": {"get": _text("proxyHealth", "As Ray Serve's own proxy answers it")},
        "/-/routes": {"get": _json("proxyRoutes", "As Ray Serve's own proxy answers it")},
    }


def _single(operation_id: str, summary: str) -> _Object:
    return _operation(
        operation_id,
        "ingest",
        summary,
        "ingest",
        {
            "202": _answer(
                "Accepted, and durable.", "ProcessingResult", accepted=examples.ACCEPTED
            ),
            "200": _answer("A duplicate.", "ProcessingResult", duplicate=examples.DUPLICATE),
            **_refusals(400, 405, 413, 415, 422, 429, 503),
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": _content("Event", **examples.EVENTS)},
    )


def _batch() -> _Object:
    content = _content("Batch", **examples.BATCH_JSON)
    content[NDJSON] = {
        "schema": {"type": "string", "description": "One event a line."},
        "examples": {"lines": {"value": examples.BATCH_NDJSON}},
    }
    wholly = {
        "429": _answer("Every item was over the rate.", "BatchResult", "Retry-After"),
        "503": _answer("No item could be taken now.", "BatchResult", "Retry-After"),
    }
    return _operation(
        "sendBatch",
        "ingest",
        f"Send 1 to {MAX_BATCH_EVENTS:,} events, each with its own fate",
        "ingest",
        {
            "200": _answer("All are processed or duplicates.", "BatchResult"),
            "207": _answer("Some were refused.", "BatchResult", partly=examples.PARTLY),
            **_refusals(400, 405, 413, 415, 422),
            **wholly,
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": content},
    )


_INGEST_HEADERS = [
    _parameter(
        "header",
        "Idempotency-Key",
        _KEY_LENGTH,
        "Stands for the eventId where there is none; in a batch, with the item's index.",
    ),
    _parameter("header", "Content-Encoding", {"enum": ["gzip", "zstd", "identity"]}),
]


def _links() -> _Object:
    return _operation(
        "makeTrackingLinks",
        "ingest",
        "Make the pixel and the tracked links of one mail",
        "ingest",
        {
            "201": _answer("The links.", "TrackingLinks"),
            **_refusals(400, 405, 413, 415, 422),
        },
        requestBody={
            "required": True,
            "content": _content("LinkRequest", links=examples.LINK_REQUEST),
        },
    )


_DURABLE = {"X-Tracking-Durable": {"$ref": "#/components/headers/X-Tracking-Durable"}}


def _hit(name: str, summary: str, responses: _Object, place: str, parameter: str) -> _Object:
    text = "From POST /tracking-links." + (" With or without .gif." if "ixel" in name else "")
    parameters = [_parameter(place, parameter, {"type": "string"}, text)]
    heads = {status: {k: v for k, v in answer.items() if k != "content"}
             for status, answer in responses.items()}  # fmt: skip
    responses, heads = responses | _refusals(405), heads | _refusals(405)
    return {
        "get": _operation(f"get{name}", "hits", summary, None, responses, parameters=parameters),
        "head": _operation(
            f"head{name}", "hits", f"{summary}; stored as a machine's", None, heads,
            parameters=parameters,
        ),
    }  # fmt: skip


def _pixel(place: str, parameter: str, name: str) -> _Object:
    gif = {
        "description": "The pixel, whatever the token is and however the service is.",
        "headers": _DURABLE,
        "content": {"image/gif": {}},
    }
    return _hit(name, "An open; always a transparent pixel", {"200": gif}, place, parameter)


def _click(place: str, parameter: str, name: str) -> _Object:
    location = {"Location": {"$ref": "#/components/headers/Location"}}
    responses = {
        "302": {"description": "To the link inside the token.", "headers": _DURABLE | location},
        "404": {
            "description": "The token is not one of ours.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
    }
    return _hit(name, "A click; leads to the link", responses, place, parameter)


def _campaign_events(campaign: _Object) -> _Object:
    time = {"type": "string", "format": "date-time"}
    content = _content("StoredEventPage")
    content[NDJSON] = {
        "schema": {"type": "string", "description": "All of them, a StoredEvent a line."}
    }
    return _operation(
        "campaignEvents",
        "reading",
        "A campaign's events, newest first; all of them with Accept: application/x-ndjson",
        "read",
        {
            "200": {"description": "A page, or all.", "content": content},
            **_refusals(405, 422, 503),
        },
        parameters=[
            campaign,
            _parameter("query", "type", ref("EventType")),
            _parameter("query", "from", time, "The first of the events' own times."),
            _parameter("query", "to", time, "Before this time."),
            _parameter(
                "query",
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
            _parameter("query", "after", {"type": "string"}, "The `next` of the page before."),
        ],
    )


def _health() -> _Object:
    return _operation(
        "health",
        "service",
        "How every part is",
        "read",
        {
            "200": _answer("Healthy or degraded.", "HealthStatus"),
            "503": _answer("Unhealthy; with strict=1 also degraded.", "HealthStatus"),
            **_refusals(405),
        },
        parameters=[
            _parameter("query", "strict", {"enum": ["0", "1"]}, "1: degraded is a 503 too.")
        ],
    )


def _text(operation_id: str, summary: str, why_not: str = "") -> _Object:
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses: _Object = {"200": {"description": "Yes.", "content": content}, **_refusals(405)}
    if why_not:
        responses["503"] = {
            "description": why_not,
            "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
            "content": content,
        }
    return _operation(operation_id, "service", summary, None, responses)


def _json(operation_id: str, summary: str) -> _Object:
    content = {JSON: {"schema": {"type": "object"}}}
    responses = {"200": {"description": summary + ".", "content": content}, **_refusals(405)}
    return _operation(operation_id, "service", summary, None, responses)
