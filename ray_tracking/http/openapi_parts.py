"""What the routes in ``/openapi.json`` are made of."""

from __future__ import annotations

from typing import Any

from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.openapi_answers import ref
from ray_tracking.http.paging import DEFAULT_LIMIT, MAX_LIMIT
from ray_tracking.pipeline.receive import JSON

Object = dict[str, Any]


HEADERS: Object = {
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


def responses() -> Object:
    """The refusals, by status: each is the same wherever it occurs."""
    return {
        "400": answer("The body cannot be read.", "Error"),
        "401": answer("No key, or an unknown one.", "Error", "WWW-Authenticate"),
        "403": answer("The key lacks the scope.", "Error"),
        "404": answer("There is none.", "Error"),
        "405": answer("Another method.", "Error", "Allow"),
        "409": answer("Its status does not allow it; the text names the status.", "Error"),
        "413": answer("The body is too large, or the batch has too many events.", "Error"),
        "415": answer(
            "A body of another type or encoding; the text names the header to send.", "Error"
        ),
        "422": answer("Something is not valid.", "Invalid", invalid=examples.INVALID),
        "429": answer("Over the rate of campaign or client.", "ComeAgain", "Retry-After"),
        "503": answer("Full, or out of reach. Come again.", "ComeAgain", "Retry-After"),
    }


def content(schema: str, **shown: Any) -> Object:
    """A JSON body, with examples by their names."""
    media: Object = {"schema": ref(schema)}
    if shown:
        media["examples"] = {name: {"value": value} for name, value in shown.items()}
    return {JSON: media}


def answer(text: str, schema: str, *headers: str, **shown: Any) -> Object:
    """An answer with a JSON body, and the headers that it has."""
    answer: Object = {"description": text, "content": content(schema, **shown)}
    if headers:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return answer


def refusals(*statuses: int) -> Object:
    """Those of :func:`responses` that a route has."""
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def operation(
    operation_id: str, tag: str, summary: str, scope: str | None, responses: Object, **more: Any
) -> Object:
    """A method of a route. Whatever asks for a key may also refuse it."""
    if scope is not None:
        responses = refusals(401, 403, 429) | responses
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [] if scope is None else [{"bearer": [scope]}],
        **more,
        "responses": dict(sorted(responses.items())),
    }


def parameter(place: str, name: str, schema: Object, text: str = "") -> Object:
    """A parameter; one in the path is always there."""
    parameter: Object = {"name": name, "in": place, "schema": schema}
    if place == "path":
        parameter["required"] = True
    return parameter | ({"description": text} if text else {})


#: Of every route that takes a body.
ENCODING = parameter("header", "Content-Encoding", {"enum": ["gzip", "zstd", "identity"]})

#: Of every route that answers page by page.
PAGE = [
    parameter(
        "query",
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    parameter("query", "after", {"type": "string"}, "The `next` of the page before."),
]
