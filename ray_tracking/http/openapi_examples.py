"""Example bodies of ``/openapi.json``. A test sends each of them through the validator."""

from __future__ import annotations

from typing import Any

import orjson

from ray_tracking.events import EventType

_MAIL = {
    "campaignId": "campaign_123",
    "leadId": "lead_456",
    "emailId": "email_789",
    "timestamp": "2026-11-23T19:00:00Z",
}
_TIME = {"timestamp": "2026-11-23T19:00:00Z"}

#: ``eventData`` of each type.
EVENT_DATA: dict[EventType, dict[str, Any]] = {
    EventType.EMAIL_SENT: {**_MAIL, "eventId": "sent-email_789", "accountId": "ann@example.com"},
    EventType.EMAIL_DELIVERED: {**_MAIL, "customData": {"variant": "B", "step": 2}},
    EventType.EMAIL_OPEN: {
        **_MAIL,
        "ipAddress": "84.160.12.7",
        "userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X)",
        "deviceInfo": {"type": "mobile", "os": "iOS"},
        "locationInfo": {"country": "DE", "timezone": "Europe/Berlin"},
    },
    EventType.LINK_CLICK: {
        **_MAIL,
        "linkUrl": "https://example.com/pricing?utm_source=mail",
        "linkId": "pricing",
    },
    EventType.EMAIL_REPLY: {
        **_MAIL,
        "messageId": "<9f2c@mail.example.org>",
        "inReplyTo": "<email_789@example.com>",
        "subject": "Re: A quick question",
        "autoReply": False,
    },
    EventType.EMAIL_BOUNCE: {
        **_MAIL,
        "bounceType": "hard",
        "bounceReason": "The account does not exist",
        "smtpCode": "5.1.1",
    },
    EventType.CAMPAIGN_STATUS_CHANGE: {
        "campaignId": "campaign_123",
        **_TIME,
        "newStatus": "paused",
        "oldStatus": "running",
        "reason": "daily limit reached",
    },
    EventType.ACCOUNT_HEALTH_UPDATE: {
        "accountId": "ann@example.com",
        **_TIME,
        "healthScore": 92.5,
        "status": "healthy",
    },
}

#: Bodies of ``POST /events``.
EVENTS: dict[str, dict[str, Any]] = {
    kind.value: {"eventType": kind.value, "eventData": data} for kind, data in EVENT_DATA.items()
} | {
    "urgent": {
        "eventType": EventType.EMAIL_OPEN.value,
        "eventData": _MAIL,
        "metadata": {"priority": "high"},
    }
}

_ITEMS = [EVENTS[EventType.EMAIL_OPEN.value], EVENTS[EventType.EMAIL_BOUNCE.value]]

#: Bodies of ``POST /events/batch``.
BATCH_JSON: dict[str, Any] = {
    "events": {"events": [{"eventType": i["eventType"], "data": i["eventData"]} for i in _ITEMS]},
    "array": _ITEMS,
}
BATCH_NDJSON = b"".join(orjson.dumps(i, option=orjson.OPT_APPEND_NEWLINE) for i in _ITEMS).decode()

LINK_REQUEST = {
    "campaignId": "campaign_123",
    "leadId": "lead_456",
    "emailId": "email_789",
    "links": ["https://example.com/pricing?utm_source=mail"],
}

ACCEPTED = {
    "success": True,
    "eventId": "01a20a02-cecb-7c3e-9cc4-b1f8e33ac75f",
    "mode": "HYBRID",
    "duplicate": False,
    "result": {"partition": 3, "lane": "normal", "position": "1795459200-1842", "index": 0},
    "processingTime": 4.1,
}
DUPLICATE = {**ACCEPTED, "duplicate": True, "result": None, "processingTime": 0.9}
INVALID = {
    "success": False,
    "error": "Event validation failed",
    "details": [{"field": "emailId", "message": "is required"}],
}
PARTLY = {
    "success": True,
    "processed": 1,
    "duplicates": 0,
    "invalid": 1,
    "rateLimited": 0,
    "overloaded": 0,
    "broadcasted": 1,
    "processingTime": 12.3,
    "breakdown": [
        {"eventType": "EMAIL_OPEN", "processed": 1, "duplicates": 0, "invalid": 0,
         "rateLimited": 0, "overloaded": 0},
        {"eventType": "EMAIL_BOUNCE", "processed": 0, "duplicates": 0, "invalid": 1,
         "rateLimited": 0, "overloaded": 0},
    ],
    "errors": [
        {
            "index": 1,
            "error": "Event validation failed",
            "details": [{"field": "bounceType", "message": "is required"}],
        }
    ],
}  # fmt: skip
LETTER: dict[str, Any] = {
    "id": ACCEPTED["eventId"],
    "eventType": EventType.EMAIL_OPEN.value,
    "eventData": EVENT_DATA[EventType.EMAIL_OPEN],
    "failureReason": 'new row for relation "events_20261123" violates check constraint "no_opens"',
    "failedAt": "2026-11-23T19:00:01.250Z",
    "attempts": 1,
    "position": ACCEPTED["result"],
    "status": "dead",
    "campaignId": "campaign_123",
    "firstFailedAt": "2026-11-23T19:00:01.250Z",
    "sqlstate": "23514",
}
REDRIVE_REQUESTS: dict[str, Any] = {
    "campaign": {"campaignId": "campaign_123"},
    "reason": {"reason": "no_opens"},
    "all": {},
}
REDRIVEN = {"success": True, "redriven": 42, "failed": 0}
REPLAY_REQUEST = {
    "campaignId": "campaign_123",
    "fromTimestamp": "2026-11-01T00:00:00Z",
    "toTimestamp": "2026-12-01T00:00:00Z",
    "options": {"reprocessAnalytics": True, "broadcastUpdates": True},
}
REPLAY_ACCEPTED = {
    "success": True,
    "replayJobId": "replay-6f1c2a9b0d3e4f58",
    "estimatedEvents": 12345,
    "message": "Replaying about 12,345 events.",
}
