"""What each method asks, and what it makes of the answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ray_tracking.api import calls
from ray_tracking.api.attempts import Failed, Reply
from ray_tracking.errors import AccessRefused, Unreachable
from ray_tracking.events import EventType
from ray_tracking.pipeline.answer import LIMITED, OVERLOADED
from tests.support.plans import Run

COUNTS = ("processed", "duplicates", "invalid", "rateLimited", "overloaded")
OPEN = {"campaign_id": "c", "lead_id": "l", "email_id": "m", "timestamp": "2026-11-01T09:00:00Z"}


def batch_reply(
    status: int,
    *,
    errors: list[dict[str, Any]] | None = None,
    wait_s: int | None = None,
    **counts: int,
) -> Reply:
    """An answer about EMAIL_OPEN alone."""
    all_counts = dict.fromkeys(COUNTS, 0) | counts
    value = {
        "success": bool(all_counts["processed"]),
        **all_counts,
        "broadcasted": all_counts["processed"],
        "processingTime": 1.5,
        "breakdown": [{"eventType": "EMAIL_OPEN", **all_counts}],
        "errors": errors or [],
    }
    return Reply(status, value, wait_s)


def batch(size: int) -> list[dict[str, Any]]:
    return [{"data": {**OPEN, "lead_id": str(n)}, "event_type": "EMAIL_OPEN"} for n in range(size)]


def leads(body: bytes) -> list[str]:
    return [item["data"]["leadId"] for item in json.loads(body)["events"]]


def test_an_event_goes_out_as_the_api_has_it() -> None:
    run = Run(Reply(202, {"success": True, "eventId": "e", "mode": "BATCH"}))
    moment = datetime(2026, 11, 1, 9, tzinfo=UTC)
    plan = calls.process_event(
        {
            **OPEN,
            "timestamp": moment,
            "device_info": {"type": "phone"},
            "custom_data": {"my_key": 1},
        },
        EventType.EMAIL_OPEN,
        {"priority": "high"},
        run.patience(),
    )
    result = run.of(plan)
    assert json.loads(run.asked[0].body) == {
        "eventType": "EMAIL_OPEN",
        "eventData": {
            "campaignId": "c", "leadId": "l", "emailId": "m",
            "timestamp": "2026-11-01T09:00:00+00:00",
            "deviceInfo": {"type": "phone"}, "customData": {"my_key": 1},
        },
        "metadata": {"priority": "high"},
    }  # fmt: skip
    assert (result.success, result.event_id, result["eventId"]) == (True, "e", "e")


def test_a_refusal_says_why_where_and_when_again() -> None:
    details = [{"field": "leadId", "message": "is required"}]
    value = {"success": False, "error": "Event validation failed", "details": details}
    run = Run(Reply(422, value))
    result = run.of(calls.process_event({}, "EMAIL_OPEN", None, run.patience()))
    assert (result.success, result.error, result.retry_after) == (False, value["error"], None)
    assert (result.details[0].field, result.details[0].message) == ("leadId", "is required")
    run = Run(Reply(429, {"success": False, "error": LIMITED, "retryAfter": 7}, 7))
    result = run.of(calls.process_event(OPEN, "EMAIL_OPEN", None, run.patience(5.0)))
    assert (result.success, result.error, result.retry_after) == (False, LIMITED, 7)


def test_what_is_no_json_is_refused_without_being_sent() -> None:
    run = Run(Failed("nobody may be asked"))
    for data in ({"lead_id": object()}, {"lead_id": "a", "leadId": "b"}):
        result = run.of(calls.process_event(data, "EMAIL_OPEN", None, run.patience()))
        assert not result.success
        assert result.details
    assert run.asked == []


def test_of_a_batch_only_what_may_pass_later_is_sent_again() -> None:
    invalid = {"index": 1, "error": "Event validation failed", "details": []}
    limited = {"index": 2, "error": LIMITED, "retryAfter": 1}
    busy = {"index": 3, "error": OVERLOADED, "retryAfter": 3}
    first = batch_reply(
        207, processed=1, invalid=1, rateLimited=1, overloaded=1, errors=[invalid, limited, busy]
    )
    run = Run(first, batch_reply(200, processed=1, duplicates=1))
    result = run.of(calls.process_event_batch(batch(4), run.patience()))
    assert [leads(request.body) for request in run.asked] == [["0", "1", "2", "3"], ["2", "3"]]
    assert run.pauses[0] >= 3
    assert (result.processed, result.duplicates, result.invalid) == (2, 1, 1)
    assert (result.rate_limited, result.overloaded, result.broadcasted) == (0, 0, 2)
    assert [error.index for error in result.errors] == [1]
    assert result.success
    (counts,) = result.breakdown
    assert (counts.event_type, counts.processed, counts.duplicates) == ("EMAIL_OPEN", 2, 1)


def test_the_counts_of_a_batch_that_is_given_up_add_up_to_it() -> None:
    limited = {"index": 1, "error": LIMITED, "retryAfter": 2}
    errors = [limited, {"index": 2, "error": OVERLOADED, "retryAfter": 2}]
    # Of the second request, which has two items.
    again = [{**error, "index": index} for index, error in enumerate(errors)]
    run = Run(
        batch_reply(207, processed=1, rateLimited=1, overloaded=1, errors=errors),
        batch_reply(429, rateLimited=1, overloaded=1, errors=again, wait_s=2),
    )
    result = run.of(calls.process_event_batch(batch(3), run.patience(9.0)))
    assert (result.processed, result.rate_limited, result.overloaded) == (1, 1, 1)
    assert [(error.index, error.error) for error in result.errors] == [
        (1, LIMITED),
        (2, OVERLOADED),
    ]
    assert result.success
    assert result.retry_after == 2


def test_a_batch_that_was_refused_unread_is_sent_again() -> None:
    busy = Reply(503, {"success": False, "error": OVERLOADED}, 1)
    run = Run(busy, Failed("away"), batch_reply(200, processed=2))
    result = run.of(calls.process_event_batch(batch(2), run.patience()))
    assert (result.processed, result.success, len(run.asked)) == (2, True, 3)
    run = Run(busy)
    result = run.of(calls.process_event_batch(batch(2), run.patience()))
    assert (result.success, result.overloaded, result.error) == (False, 2, OVERLOADED)


def test_a_batch_is_unreachable_only_where_nothing_is_known_of_it() -> None:
    run = Run(Failed("away"))
    with pytest.raises(Unreachable, match="away"):
        run.of(calls.process_event_batch(batch(2), run.patience()))
    busy = [{"index": 0, "error": OVERLOADED, "retryAfter": 1}]
    run = Run(batch_reply(207, processed=1, overloaded=1, errors=busy), Failed("away"))
    result = run.of(calls.process_event_batch(batch(2), run.patience()))
    assert (result.processed, result.overloaded) == (1, 1)


def test_one_item_that_is_no_json_refuses_no_other() -> None:
    run = Run(batch_reply(200, processed=1))
    items = [{"data": {"lead_id": object()}, "event_type": "EMAIL_OPEN"}, *batch(1)]
    result = run.of(calls.process_event_batch(items, run.patience()))
    assert leads(run.asked[0].body) == ["0"]
    assert (result.processed, result.invalid) == (1, 1)
    assert [error.index for error in result.errors] == [0]


def test_a_batch_that_is_refused_as_a_whole_says_so() -> None:
    run = Run(Reply(413, {"success": False, "error": "more than 10,000 events"}))
    result = run.of(calls.process_event_batch(batch(1), run.patience()))
    assert (result.success, result.error) == (False, "more than 10,000 events")
    details = [{"field": "events", "message": "must hold at least one event"}]
    run = Run(
        Reply(422, {"success": False, "error": "Event validation failed", "details": details})
    )
    result = run.of(calls.process_event_batch([], run.patience()))
    assert result.details[0].field == "events"


def test_an_unhealthy_service_is_an_answer() -> None:
    redis = {"status": "unhealthy", "error": "away", "connections": {}}
    at = "2026-11-01T09:00:00Z"
    health = {"timestamp": at, "overall": "unhealthy", "components": {"redis": redis}}
    run = Run(Reply(503, health))
    status = run.of(calls.health(run.patience()))
    assert (status.overall, len(run.asked)) == ("unhealthy", 1)
    part = status.component("redis")
    assert (part.status, part.error, part.figures) == ("unhealthy", "away", {"connections": {}})
    assert status.component("nonsense").status == "unknown"


def test_a_question_without_room_for_a_refusal_raises() -> None:
    run = Run(Reply(403, {"success": False, "error": "no scope"}))
    with pytest.raises(AccessRefused, match="no scope"):
        run.of(calls.stats(run.patience()))
    run = Run(Reply(503, {"success": False, "error": "silent"}, 1))
    with pytest.raises(Unreachable, match="silent"):
        run.of(calls.stats(run.patience()))


def test_stats_of_a_newer_service_are_read_all_the_same() -> None:
    value = {"uptime": 3.5, "eventsProcessed": 4, "processingMode": "BATCH", "somethingNew": [1]}
    run = Run(Reply(200, value))
    stats = run.of(calls.stats(run.patience()))
    assert (stats.uptime, stats.events_processed, stats["processingMode"]) == (3.5, 4, "BATCH")


def test_a_replay_has_one_key_for_all_its_attempts() -> None:
    value = {"success": True, "replayJobId": "r", "estimatedEvents": 3, "message": "…"}
    run = Run(Failed("away"), Reply(202, value))
    options = {"batchSize": 10}
    plan = calls.replay_events(
        "c", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", options, "key", run.patience()
    )
    result = run.of(plan)
    assert (result.replay_job_id, result.estimated_events) == ("r", 3)
    assert [request.headers["Idempotency-Key"] for request in run.asked] == ["key"] * 2
