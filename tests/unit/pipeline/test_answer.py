"""Answers: what a caller is told is what became of the events."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import EventType
from ray_tracking.pipeline.answer import (
    BatchReport,
    invalid,
    processing_result,
    public_id,
    retry_after_s,
)
from ray_tracking.pipeline.gather import Outcome, Verdict
from tests.unit.pipeline.samples import minted

COUNTS = ("processed", "duplicates", "invalid", "rateLimited", "overloaded")
PLACE = (3, 1, 1795459200, 1842, 5)
ACCEPTED = Outcome(Verdict.ACCEPTED, PLACE)
DUPLICATE = Outcome(Verdict.DUPLICATE, PLACE, minted(1))
LIMITED = Outcome(Verdict.LIMITED, retry_after_s=12.3)
OVERLOADED = Outcome(Verdict.UNAVAILABLE, retry_after_s=1.0)
WRONG = InvalidEvent([("linkUrl", "is required"), ("", "odd")])
DETAILS = [{"field": "linkUrl", "message": "is required"}, {"field": "", "message": "odd"}]

fates = st.lists(
    st.tuples(
        st.sampled_from([*EventType, None]),
        st.sampled_from([ACCEPTED, DUPLICATE, LIMITED, OVERLOADED, WRONG]),
    ),
    min_size=1,
    max_size=12,
)


def report(
    items: list[tuple[EventType | None, Outcome | InvalidEvent]],
) -> tuple[int, dict[str, Any], Any]:
    """Invalid items are known first, as validation comes before the shard's answer."""
    batch = BatchReport(60_000)
    for index, (event_type, fate) in enumerate(items):
        if isinstance(fate, InvalidEvent) or event_type is None:
            batch.refuse(index, event_type, WRONG)
    for index, (event_type, fate) in enumerate(items):
        if isinstance(fate, Outcome) and event_type is not None:
            batch.settle(index, event_type, fate)
    return batch.answer(12.3456)


# -- one event ---------------------------------------------------------------


def test_an_accepted_event_is_answered_with_its_place() -> None:
    assert processing_result(ACCEPTED, "e1", "HYBRID", 4.12345) == {
        "success": True,
        "eventId": "e1",
        "mode": "HYBRID",
        "duplicate": False,
        "result": {"partition": 3, "lane": "normal", "position": "1795459200-1842", "index": 5},
        "processingTime": 4.123,
    }


def test_a_duplicate_is_a_success_with_the_place_of_the_first() -> None:
    result = processing_result(DUPLICATE, "e1", "BATCH", 1)

    assert (result["success"], result["duplicate"]) == (True, True)
    assert result["result"]["position"] == "1795459200-1842"


def test_an_answer_without_a_place_says_null() -> None:
    assert processing_result(Outcome(Verdict.ACCEPTED), "e1", "BATCH", 1)["result"] is None


def test_the_id_is_the_callers_own_else_ours_else_that_of_the_first() -> None:
    assert public_id("mine", minted(2), ACCEPTED) == "mine"
    assert public_id("mine", minted(2), DUPLICATE) == "mine"
    assert public_id(None, minted(2), ACCEPTED) == str(UUID(bytes=minted(2)))
    assert public_id(None, minted(2), DUPLICATE) == str(UUID(bytes=minted(1)))


def test_a_422_names_every_field() -> None:
    expected = {"success": False, "error": "Event validation failed", "details": DETAILS}

    assert invalid(WRONG) == expected


@given(st.floats(0, 1e9), st.integers(1, 10**7))
def test_retry_after_is_a_whole_number_that_suffices_and_never_outlasts_the_window(
    wait_s: float, window_ms: int
) -> None:
    """A client that came back after the window could not be recognised any more."""
    answer = retry_after_s(wait_s, window_ms)

    assert type(answer) is int
    assert answer >= 1
    assert answer == 1 or answer * 1000 <= window_ms
    assert answer >= wait_s or answer == max(1, window_ms // 1000)


# -- a batch -----------------------------------------------------------------


@given(fates)
def test_the_counts_add_up_to_the_items(items: list[tuple[Any, Any]]) -> None:
    status, body, _ = report(items)
    breakdown = {part["eventType"]: part for part in body["breakdown"]}

    assert sum(body[name] for name in COUNTS) == len(items)
    assert body["broadcasted"] == body["processed"]
    for name in COUNTS:
        assert sum(part[name] for part in breakdown.values()) == body[name]
    sent = Counter(event_type for event_type, _ in items)
    assert {kind: sum(part[name] for name in COUNTS) for kind, part in breakdown.items()} == sent
    assert body["success"] is bool(body["processed"] or body["duplicates"])
    assert body["processingTime"] == 12.346
    refused = len(items) - body["processed"] - body["duplicates"]
    assert len(body["errors"]) == refused
    assert (status == 200) is (refused == 0)


@given(fates)
def test_errors_stand_in_the_order_of_the_items_with_what_helps(
    items: list[tuple[Any, Any]],
) -> None:
    _, body, _ = report(items)

    expected = []
    for index, (event_type, fate) in enumerate(items):
        if fate is WRONG or event_type is None:
            error = {"index": index, "error": "Event validation failed", "details": DETAILS}
        elif fate is LIMITED:
            error = {"index": index, "error": "Rate limit exceeded", "retryAfter": 13}
        elif fate is OVERLOADED:
            text = "The service cannot take this event now"
            error = {"index": index, "error": text, "retryAfter": 1}
        else:
            continue
        expected.append(error)
    assert body["errors"] == expected


@given(fates)
def test_a_batch_fails_as_a_whole_only_for_one_reason(items: list[tuple[Any, Any]]) -> None:
    """A client sends a 429 or 503 again as it is: nothing of it may have been taken."""
    status, body, headers = report(items)
    outcomes = {WRONG if event_type is None else fate for event_type, fate in items}

    if outcomes == {LIMITED}:
        assert (status, headers, body["error"]) == (
            429,
            {"Retry-After": "13"},
            "Rate limit exceeded",
        )
    elif outcomes == {OVERLOADED}:
        assert (status, headers) == (503, {"Retry-After": "1"})
        assert body["error"]
    else:
        assert status == (200 if outcomes <= {ACCEPTED, DUPLICATE} else 207)
        assert headers == {}
        assert "error" not in body


def test_the_header_waits_for_the_slowest_item() -> None:
    batch = BatchReport(60_000)
    for index, wait_s in enumerate((3.0, 8.2, 1.0)):
        outcome = Outcome(Verdict.LIMITED, retry_after_s=wait_s)
        batch.settle(index, EventType.EMAIL_OPEN, outcome)
    status, body, headers = batch.answer(1)

    assert (status, headers) == (429, {"Retry-After": "9"})
    assert [error["retryAfter"] for error in body["errors"]] == [3, 9, 1]


@pytest.mark.parametrize("window_ms", [2000, 10_000])
def test_no_item_is_told_to_outlast_the_window(window_ms: int) -> None:
    batch = BatchReport(window_ms)
    batch.settle(0, EventType.EMAIL_OPEN, Outcome(Verdict.LIMITED, retry_after_s=59.0))
    _, body, headers = batch.answer(1)

    assert headers == {"Retry-After": str(window_ms // 1000)}
    assert body["errors"][0]["retryAfter"] == window_ms // 1000


def test_unknown_types_stand_under_null() -> None:
    _, body, _ = report([(None, WRONG), (EventType.EMAIL_OPEN, ACCEPTED)])

    assert [part["eventType"] for part in body["breakdown"]] == [None, "EMAIL_OPEN"]
