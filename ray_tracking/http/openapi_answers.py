"""
What the API answers, as JSON Schema: the components of ``/openapi.json`` that are not
models of :mod:`ray_tracking.events`. A test holds them against real answers.
"""

from __future__ import annotations

from typing import Any, get_args

from ray_tracking.events import LANES, EventType
from ray_tracking.pipeline.letters import LetterStatus
from ray_tracking.pipeline.replay import ReplayStatus
from ray_tracking.settings.model import Source

Schema = dict[str, Any]

_COUNTS = ("processed", "duplicates", "invalid", "rateLimited", "overloaded")


def ref(name: str) -> Schema:
    """A reference to a component schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, *optional: str, description: str = "") -> Schema:
    """An object of exactly these properties, required unless named as optional."""
    schema: Schema = {"description": description} if description else {}
    return schema | {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LIMIT: Schema = {"type": "integer", "minimum": 1}
_TIME: Schema = {"type": "string", "format": "date-time"}
_URL: Schema = {"type": "string", "format": "uri"}
#: A count; of `firstEventAt` and `lastEventAt` a time.
_COMPARED: Schema = {"anyOf": [{"type": "integer"}, _TIME, {"type": "null"}]}
_RATE = _or_null({"type": "number", "minimum": 0})
_MILLISECONDS: Schema = {"type": "number", "minimum": 0, "description": "Milliseconds."}
_WAIT: Schema = {
    "type": "integer",
    "minimum": 1,
    "description": "Seconds to wait before sending it again, with the same eventId.",
}
_DETAILS: Schema = {
    "type": "array",
    "items": _object({"field": _STRING, "message": _STRING}),
    "description": "Everything that is wrong, field by field.",
}
_FAILED: Schema = {"const": False}
_DISCARDED: Schema = {"const": LetterStatus.DISCARDED.value}
_CURSOR = _or_null({"type": "string", "description": "Send it as `after` for the next page."})
_BOUNCES = _object(dict.fromkeys(("hard", "soft", "complaint", "suppression"), _COUNT))
_REPLAY: Schema = {
    "replayJobId": {"type": "string", "description": "Also the id of the Ray job."},
    "campaignId": _STRING,
    "status": {"enum": [status.value for status in ReplayStatus]},
    "processed": _COUNT,
    "estimatedEvents": _COUNT,
    "startedAt": _or_null(_TIME),
    "finishedAt": _or_null(_TIME),
    "error": _or_null(_STRING),
}

ANSWERS: dict[str, Schema] = {
    "EventType": {"type": "string", "enum": [kind.value for kind in EventType]},
    "ProcessingResult": _object(
        {
            "success": {"const": True},
            "eventId": {
                "type": "string",
                "description": "The caller's own, else the one made here; of a duplicate, the "
                "first one's.",
            },
            "mode": {"enum": ["REALTIME", "BATCH", "HYBRID"]},
            "duplicate": _BOOLEAN,
            "fallback": {"const": True, "description": "It is in the spool, not yet in the log."},
            "result": _or_null(ref("LogPlace")),
            "processingTime": _MILLISECONDS,
        },
        "fallback",
        description="The event is durable, or was already.",
    ),
    "LogPlace": _object(
        {
            "partition": _COUNT,
            "lane": {"enum": [lane.value for lane in LANES]},
            "position": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
            "index": _COUNT,
        },
        description="Where the event is in the log.",
    ),
    "Error": _object({"success": _FAILED, "error": _STRING}),
    "ComeAgain": _object(
        {"success": _FAILED, "error": _STRING, "retryAfter": _WAIT},
        "retryAfter",
        description="Nothing is wrong with the request; it cannot be served now.",
    ),
    "Invalid": _object({"success": _FAILED, "error": _STRING, "details": _DETAILS}),
    "BatchResult": _object(
        {
            "success": {
                "type": "boolean",
                "description": "False when nothing was processed or a duplicate.",
            },
            **dict.fromkeys(_COUNTS, _COUNT),
            "broadcasted": {**_COUNT, "description": "Handed to the live log."},
            "fallback": {"const": True, "description": "Some are in the spool, not in the log."},
            "processingTime": _MILLISECONDS,
            "breakdown": {
                "type": "array",
                "items": _object(
                    {
                        "eventType": _or_null(ref("EventType")),
                        **dict.fromkeys(_COUNTS, _COUNT),
                    }
                ),
                "description": "The same counts by type; unknown types stand under null.",
            },
            "errors": {"type": "array", "items": ref("ItemError")},
            "error": {"type": "string", "description": "Where all were refused for one reason."},
        },
        "error",
        "fallback",
        description="The counts processed to overloaded add up to the items sent.",
    ),
    "ItemError": _object(
        {"index": _COUNT, "error": _STRING, "details": _DETAILS, "retryAfter": _WAIT},
        "details",
        "retryAfter",
    ),
    "TrackingLinks": _object(
        {
            "pixelUrl": _URL,
            "links": {
                "type": "array",
                "items": _object({"url": _URL, "trackingUrl": _URL}),
            },
        }
    ),
    "CampaignStats": _object(
        {
            "campaignId": _STRING,
            **dict.fromkeys(
                (
                    "sent",
                    "delivered",
                    "opens",
                    "uniqueOpens",
                    "clicks",
                    "uniqueClicks",
                    "replies",
                    "uniqueReplies",
                ),
                _COUNT,
            ),
            "bounces": _BOUNCES,
            "machineOpens": _COUNT,
            "machineClicks": _COUNT,
            "rates": _object(
                dict.fromkeys(("open", "click", "reply", "bounce", "complaint"), _RATE)
            ),
            "firstEventAt": _or_null(_TIME),
            "lastEventAt": _or_null(_TIME),
            "asOf": _TIME,
        },
        description="Totals and uniques leave machines out. Rates are fractions, null at zero.",
    ),
    "CampaignPage": _object(
        {"items": {"type": "array", "items": ref("CampaignStats")}, "next": _CURSOR}
    ),
    "Timeline": _object(
        {
            "items": {
                "type": "array",
                "items": _object(
                    {
                        "bucketStart": _TIME,
                        "counts": {
                            "type": "object",
                            "propertyNames": ref("EventType"),
                            "additionalProperties": {"type": "integer", "minimum": 1},
                            "description": "Events by people, of the types that there were.",
                        },
                    }
                ),
            },
            "next": _CURSOR,
        },
        description="Buckets by the events' own times, in UTC; those without events are left out.",
    ),
    "LinkPage": _object(
        {
            "items": {
                "type": "array",
                "items": _object(
                    {
                        "linkUrl": _STRING,
                        "linkId": _or_null(_STRING),
                        "clicks": _COUNT,
                        "uniqueClicks": {**_COUNT, "description": "Leads that clicked it."},
                    }
                ),
            },
            "next": _CURSOR,
        }
    ),
    "Breakdown": _object(
        {
            "campaignId": _STRING,
            "devices": {"type": "array", "items": ref("Group")},
            "countries": {"type": "array", "items": ref("Group")},
            "bounces": _BOUNCES,
        },
        description="Opens and clicks by people, by type of device and by country.",
    ),
    "Group": _object(
        {"name": _or_null({**_STRING, "description": "Null where not known."}), "count": _COUNT}
    ),
    "Check": _object(
        {
            "campaignId": _STRING,
            "equal": {"type": "boolean", "description": "Whether there are no differences."},
            "compared": {**_COUNT, "description": "How many figures."},
            "differences": _COUNT,
            "figures": {
                "type": "array",
                "items": _object(
                    {
                        "figure": {
                            **_STRING,
                            "description": "As in `stats`: `uniqueOpens`, `bounces.hard`. What "
                            "it is about follows: `day 2026-11-20T00:00:00.000Z EMAIL_OPEN`.",
                        },
                        "rollup": _COMPARED,
                        "recount": _COMPARED,
                    }
                ),
                "description": "The totals, and whatever differs.",
            },
        },
        description="The figures against a recount of the rows, in one snapshot.",
    ),
    "LeadStory": _object(
        {
            "campaignId": _STRING,
            "leadId": _STRING,
            "state": _object(
                {
                    **dict.fromkeys(("sent", "delivered"), _COUNT),
                    **dict.fromkeys(("opened", "clicked", "replied", "bounced"), _BOOLEAN),
                    **dict.fromkeys(("opens", "clicks", "replies"), _COUNT),
                    "bounces": _BOUNCES,
                    **dict.fromkeys(("machineOpens", "machineClicks"), _COUNT),
                    "firstEventAt": _or_null(_TIME),
                    "lastEventAt": _or_null(_TIME),
                }
            ),
            "items": {"type": "array", "items": ref("StoredEvent")},
            "next": _CURSOR,
        },
        description="What one lead has done in a campaign, newest first.",
    ),
    "StoredEvent": _object(
        {
            "eventId": _STRING,
            "eventType": ref("EventType"),
            "eventData": {"type": "object", "description": "As it was accepted."},
            "receivedAt": _TIME,
        }
    ),
    "StoredEventPage": _object(
        {"items": {"type": "array", "items": ref("StoredEvent")}, "next": _CURSOR}
    ),
    "DeadLetter": _object(
        {
            "id": {"type": "string", "format": "uuid"},
            "eventType": _STRING,
            "eventData": _or_null(
                {"type": "object", "description": "As it was accepted; null if it cannot be read."}
            ),
            "failureReason": _STRING,
            "failedAt": {**_TIME, "description": "The last time."},
            "attempts": {"type": "integer", "minimum": 1},
            "position": ref("LogPlace"),
            "status": ref("LetterStatus"),
            "campaignId": _or_null(_STRING),
            "firstFailedAt": _TIME,
            "sqlstate": _or_null({"type": "string", "description": "Postgres' code, if any."}),
            "raw": {
                "type": "string",
                "contentEncoding": "base64",
                "description": "The row as COPY would have had it, where eventData is null.",
            },
        },
        "raw",
        description="An event that Postgres refused. Its position is that of the last try.",
    ),
    "Replay": _object(
        _REPLAY,
        description="Processed and estimated are the events of the span.",
    ),
    "ReplayPage": _object({"items": {"type": "array", "items": ref("Replay")}, "next": _CURSOR}),
    "ReplayAccepted": _object(
        {
            "success": {"const": True},
            "replayJobId": _STRING,
            "estimatedEvents": _COUNT,
            "message": _STRING,
        }
    ),
    "ReplayStopped": _object({"success": {"const": True}, **_REPLAY}),
    "LeadExport": _object(
        {
            "leadId": _STRING,
            "events": {"type": "array", "items": ref("StoredEvent")},
            "campaigns": {
                "type": "array",
                "items": _object(
                    {
                        "campaignId": _STRING,
                        **dict.fromkeys(("opened", "clicked", "replied"), _BOOLEAN),
                    }
                ),
                "description": "Where it counts as a unique lead.",
            },
            "deadLetters": {"type": "array", "items": ref("DeadLetter")},
        },
        description="Everything that is stored of one lead.",
    ),
    "LeadErased": _object(
        {
            "success": {"const": True},
            "leadId": _STRING,
            "erasedAt": _TIME,
            "removed": _object(
                {
                    "events": _COUNT,
                    "deadLetters": _COUNT,
                    "campaigns": {
                        "type": "array",
                        "items": _STRING,
                        "description": "Whose figures changed.",
                    },
                }
            ),
            "message": _STRING,
        },
        description="The receipt.",
    ),
    "Limits": _object(
        {
            "campaignId": _STRING,
            "maxEventsPerWindow": _LIMIT,
            "burstCapacity": _LIMIT,
            "rateLimitWindowMs": _LIMIT,
            "default": _object({"maxEventsPerWindow": _LIMIT, "burstCapacity": _LIMIT}),
            "updatedAt": _or_null(_TIME),
        },
        description="What a campaign may send; updatedAt is null where it has no limits of its "
        "own. burstCapacity: single events in any second.",
    ),
    "Config": _object(
        {
            "settings": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        "value": {},
                        "source": {"enum": list(get_args(Source))},
                        "changeable": _BOOLEAN,
                    }
                ),
            },
            "changes": {
                "type": "array",
                "items": _object({"at": _TIME, "name": _STRING, "old": {}, "new": {}}),
                "description": "The last hundred.",
            },
            "rejected": _or_null(_object({"at": _TIME, "error": _STRING})),
            "pending": {
                "type": "array",
                "items": _STRING,
                "description": "Parts that do not go by it yet.",
            },
        },
        description="The settings in force; rejected is the last change, if it was impossible.",
    ),
    "LetterStatus": {
        "enum": [status.value for status in LetterStatus],
        "description": "redriven: it became a row after all. discarded: it never will.",
    },
    "DeadLetterPage": _object(
        {"items": {"type": "array", "items": ref("DeadLetter")}, "next": _CURSOR}
    ),
    "RedriveRequest": _object(
        {name: {"type": "string", "minLength": 1} for name in ("campaignId", "reason")},
        "campaignId",
        "reason",
    ),
    "Redriven": _object(
        {"success": {"const": True}, "id": _STRING, "redriven": {"const": 1}},
        description="The log has it. It is a row, and the letter redriven, in a moment; or the "
        "same letter is dead again.",
    ),
    "RedriveResult": _object(
        {
            "success": {
                "type": "boolean",
                "description": "False when there were letters and none was taken.",
            },
            "redriven": {**_COUNT, "description": "Those that the log has."},
            "failed": {**_COUNT, "description": "Those that it did not take; they stay dead."},
            "error": {"type": "string", "description": "Where some failed."},
            "retryAfter": _WAIT,
        },
        "error",
        "retryAfter",
        description="Of the letters that were dead when it began.",
    ),
    "Discarded": _object({"success": {"const": True}, "id": _STRING, "status": _DISCARDED}),
    "HealthStatus": _object(
        {
            "timestamp": _TIME,
            "overall": ref("Status"),
            "components": {"type": "object", "additionalProperties": ref("Component")},
        }
    ),
    "Status": {"enum": ["healthy", "degraded", "unhealthy"]},
    "Component": {
        "type": "object",
        "properties": {
            "status": ref("Status"),
            "since": {**_TIME, "description": "When it was first seen so."},
            "error": {**_STRING, "description": "What is wrong."},
            "parts": {
                "type": "array",
                "items": _STRING,
                "description": "The actors that it is about, where it is about some.",
            },
            "action": {**_STRING, "description": "What to do."},
        },
        "required": ["status", "since"],
        "description": "How one component is, with figures of its own.",
    },
    "ComponentStatus": {
        "allOf": [ref("Component")],
        "properties": {"timestamp": _TIME, "component": _STRING},
        "required": ["timestamp", "component"],
    },
}
