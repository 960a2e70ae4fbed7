"""What ``/openapi.json`` says of live updates and of ProcessingStats."""

from __future__ import annotations

from typing import Any

_Object = dict[str, Any]

_COUNT: _Object = {"type": "integer", "minimum": 0}
_NUMBER: _Object = {"type": "number", "minimum": 0}
_CONNECTED: _Object = {"enum": ["connected", "disconnected"]}
_BREAKER: _Object = {
    "type": "object",
    "properties": {
        "state": {"enum": ["closed", "half_open", "open"]},
        "failures": _COUNT,
        "openedAt": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    },
    "required": ["state", "failures", "openedAt"],
}
_COUNTS = (
    "eventsProcessed", "batchesProcessed", "duplicatesDetected", "dedupEvictedEarly",
    "validationErrors", "processingErrors", "rateLimited", "backpressureEvents", "queueDepth",
    "bufferSize", "logLag", "spooled", "parked", "deadLetters", "trackingUnconfirmed",
    "trackingLost", "liveConnections",
)  # fmt: skip
_STATS: _Object = {
    **dict.fromkeys(_COUNTS, _COUNT),
    "averageProcessingTime": {**_NUMBER, "description": "Milliseconds, of the last minute."},
    "currentThroughput": {**_NUMBER, "description": "Accepted per second, last five seconds."},
    "peakThroughput": _NUMBER,
    "backpressureLevel": {"enum": ["normal", "warning", "critical", "emergency"]},
    "processingMode": {"enum": ["REALTIME", "BATCH", "HYBRID"]},
    "memoryUsage": {
        "type": "object",
        "properties": {
            "rss": {**_COUNT, "description": "Bytes."},
            "perActor": {"type": "object", "additionalProperties": _COUNT},
        },
        "required": ["rss", "perActor"],
    },
    "initialized": {"type": "boolean"},
    "running": {"type": "boolean"},
    "uptime": {**_NUMBER, "description": "Seconds."},
    "redisStatus": {
        "type": "object",
        "properties": dict.fromkeys(("main", "subscriber", "stream"), _CONNECTED),
        "required": ["main", "subscriber", "stream"],
    },
    "circuitBreakers": {
        "type": "object",
        "properties": dict.fromkeys(("database", "redis"), _BREAKER),
        "required": ["database", "redis"],
    },
}
_MORE = dict.fromkeys(("totalProcessed", "totalBatches", "totalErrors"), _COUNT)


def _object(properties: _Object) -> _Object:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: _Object = {
    "ProcessingStats": _object(_STATS),
    "DashboardStats": _object({**_STATS, **_MORE}),
}

#: Answers of 200 that are not JSON.
EVENT_STREAM: _Object = {
    "description": "Server-sent events, named as the events of `/asyncapi.json`; `id` is the "
    "cursor. The first is `subscribed`.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
LIVE_PARAMETERS: list[_Object] = [
    {
        "name": "detailed",
        "in": "query",
        "schema": {"enum": ["1", "true", "0", "false"]},
        "description": "Show each event.",
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The id of the last event that was seen: go on behind it.",
    },
]
