"""``/asyncapi.json``: AsyncAPI 3 of what is said over ``/ws``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from ray_tracking import __version__
from ray_tracking.events import MAX_ID_CHARS, EventType
from ray_tracking.http.openapi_answers import ANSWERS
from ray_tracking.http.openapi_live import SCHEMAS

_Object = dict[str, Any]

_STRING: _Object = {"type": "string"}
_COUNT: _Object = {"type": "integer", "minimum": 0}
_TIME: _Object = {"type": "string", "format": "date-time"}
_CAMPAIGN: _Object = {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS}
_EVENT_TYPE: _Object = {"enum": [kind.value for kind in EventType]}
_FIGURES = (
    "sent", "delivered", "opens", "uniqueOpens", "clicks", "uniqueClicks", "replies",
    "uniqueReplies",
)  # fmt: skip
_BOUNCES = ("hard", "soft", "complaint", "suppression")


def _object(properties: _Object, *optional: str) -> _Object:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _nullable(schema: _Object) -> _Object:
    return {"anyOf": [schema, {"type": "null"}]}


_COUNTERS = _object(
    dict.fromkeys(_FIGURES, _COUNT) | {"bounces": _object(dict.fromkeys(_BOUNCES, _COUNT))}
)
_LAST_EVENT = _nullable(_object({"eventType": _EVENT_TYPE, "timestamp": _TIME}))
_PROGRESS: _Object = {
    "campaignId": _CAMPAIGN,
    "counters": _COUNTERS,
    "lastEvent": _LAST_EVENT,
    "version": {**_COUNT, "description": "Grows with every message of a campaign."},
    "correction": {"const": True, "description": "Figures went back."},
}
_WHO: _Object = {
    "eventType": _EVENT_TYPE,
    "leadId": _nullable(_STRING),
    "emailId": _nullable(_STRING),
}
_EVENT = _object(
    _WHO
    | {
        "linkUrl": _nullable(_STRING),
        "timestamp": _TIME,
        "deviceInfo": _nullable({"type": "object"}),
        "locationInfo": _nullable({"type": "object"}),
    }
)
_BATCHED = _object(
    {"campaignId": _CAMPAIGN}
    | _WHO
    | {
        "timestamp": _TIME,
        "counters": _COUNTERS,
        "lastEvent": _LAST_EVENT,
        "version": _COUNT,
    }
)
_LEVEL: _Object = {"enum": ["normal", "warning", "critical", "emergency"]}
_MODE: _Object = {"enum": ["REALTIME", "BATCH", "HYBRID"]}

#: What the server says: the data of each event.
SAID: dict[str, _Object] = {
    "subscribed": _object(
        {
            "campaignId": _CAMPAIGN,
            "recovered": {
                "type": "boolean",
                "description": "Nothing was missed since the cursor; what was comes next.",
            },
            "snapshot": _nullable({"$ref": "#/components/schemas/CampaignStats"}),
            "correction": {"const": True, "description": "Figures went back."},
        },
        "correction",
    ),
    "campaign_progress": _object(_PROGRESS, "correction"),
    "campaign_progress_detailed": _object(_PROGRESS | {"event": _EVENT}, "correction"),
    "progress_batch": _object(
        {
            "batchSize": _COUNT,
            "events": {"type": "array", "items": _BATCHED},
            "dropped": {**_COUNT, "description": "Events that are in the figures only."},
        }
    ),
    "backpressure_changed": _object({"oldLevel": _LEVEL, "newLevel": _LEVEL}),
    "processing_mode_changed": _object({"oldMode": _MODE, "newMode": _MODE}),
    "health_check": {"$ref": "#/components/schemas/HealthStatus"},
    "metrics_collected": {"$ref": "#/components/schemas/ProcessingStats"},
    "pong": _object({}),
    "error": _object({"code": _STRING, "message": _STRING}),
}
#: What a client says: what stands beside ``action``.
ASKED: dict[str, _Object] = {
    "authenticate": {"token": _STRING},
    "subscribe_campaign": {
        "campaignId": _CAMPAIGN,
        "detailed": {"type": "boolean"},
        "cursor": _nullable({"type": "string", "description": "Of the last message of it."}),
    },
    "unsubscribe_campaign": {"campaignId": _CAMPAIGN},
    "subscribe_system": {},
    "ping": {},
}


def document(base_url: str) -> _Object:
    """
    The whole description.

    Args:
        base_url: Where the service is, as clients see it.
    """
    base = urlsplit(base_url)
    said = {name: _said(name, data) for name, data in SAID.items()}
    asked = {name: _asked(name, more) for name, more in ASKED.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ray-tracking",
            "version": __version__,
            "description": "Campaigns and the system as they happen. Figures are absolute. Where "
            "the service has keys, the first message is `authenticate`, within five seconds. A "
            "connection is closed with 4401 (no or bad credential), 4408 (too slow) or 1012 "
            "(come back, another will serve you). Keep the cursor of each campaign's last message.",
        },
        "servers": {
            "service": {
                "host": base.netloc,
                "protocol": "wss" if base.scheme == "https" else "ws",
            }
        },
        "channels": {
            "live": {
                "address": "/ws",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in [*said, *asked]
                },
            }
        },
        "operations": {
            "say": _operation("send", said),
            "ask": _operation("receive", asked),
        },
        "components": {
            "messages": said | asked,
            "schemas": {
                name: schema for name, schema in (ANSWERS | SCHEMAS).items() if name in _NEEDED
            },
        },
    }


_NEEDED = ("CampaignStats", "HealthStatus", "Status", "Component", "ProcessingStats")


def _operation(action: str, messages: _Object) -> _Object:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/live"},
        "messages": [{"$ref": f"#/channels/live/messages/{name}"} for name in messages],
    }


def _said(name: str, data: _Object) -> _Object:
    payload = _object({"event": {"const": name}, "data": data, "cursor": _STRING})
    return {"name": name, "contentType": "application/json", "payload": payload}


def _asked(name: str, more: _Object) -> _Object:
    payload = _object({"action": {"const": name}} | more, "detailed", "cursor")
    return {"name": name, "contentType": "application/json", "payload": payload}
