"""
``/openapi.json``: OpenAPI 3.1 of what this service answers, from the models themselves.

To add a route: an entry in the module that :func:`ray_tracking.http.openapi_paths.paths` takes
its kind from, and its answer in :mod:`ray_tracking.http.openapi_answers`. A test refuses a route
that is missing here, and one that is here and not answered.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from ray_tracking import __version__
from ray_tracking.events import MAX_BATCH_EVENTS, MODELS, EventType, Metadata
from ray_tracking.http.limits import LimitsBody
from ray_tracking.http.openapi_answers import ANSWERS, ref
from ray_tracking.http.openapi_live import SCHEMAS
from ray_tracking.http.openapi_parts import HEADERS, responses
from ray_tracking.http.openapi_paths import paths
from ray_tracking.http.replays import ReplayBody
from ray_tracking.http.tracking import MAX_LINKS, LinkRequest

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
    "reading": "Campaigns: their figures, and the stored rows.",
    "replays": "Counting a campaign's figures anew from its rows.",
    "limits": "How much single campaigns may send.",
    "leads": "Handing out and erasing what is stored of a person.",
    "dashboard": "The live web page.",
    "dead letters": "Events that Postgres refused for what they are.",
    "live": "As it happens. `/ws` is described by `/asyncapi.json`.",
    "service": "How the service is.",
}
#: What the validator asks beyond the models.
_RULES = {
    "ipAddress": "An IPv4 or IPv6 address.",
    "linkUrl": "An absolute http or https URL, without control characters.",
    "customData": "Anything of yours: at most 16 KiB as JSON, and 8 levels.",
}


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
        "paths": paths(),
        "components": {
            "schemas": _schemas(),
            "headers": HEADERS,
            "responses": responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}
            },
        },
    }


def _schemas() -> _Object:
    """The models, an event of each type around them, and the answers."""
    models = [*dict.fromkeys(MODELS.values()), Metadata, LinkRequest, ReplayBody, LimitsBody]
    _, generated = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models],
        ref_template="#/components/schemas/{model}",
    )
    found: _Object = {name: _plain(schema) for name, schema in generated["$defs"].items()}
    found["LinkRequest"]["properties"]["links"]["maxItems"] = MAX_LINKS
    for schema in found.values():
        for name in _RULES.keys() & schema.get("properties", {}).keys():
            schema["properties"][name]["description"] = _RULES[name]
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
    return dict(sorted((found | ANSWERS | SCHEMAS).items()))


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
