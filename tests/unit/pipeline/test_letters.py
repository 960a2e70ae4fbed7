"""Dead letters: shown whatever they hold, sent again as the same event."""

from __future__ import annotations

import base64
import json
import struct
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.events import LANES, Event, Lane
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.letters import NewLetters, RedriveRun, resubmit, show
from ray_tracking.pipeline.route import HIT, REDRIVE, Router, Submission
from ray_tracking.pipeline.rows import encode_row
from ray_tracking.pipeline.validate import validate_item
from tests.unit.pipeline.samples import NOW, NOW_MS, NOW_S, minted

ID = minted(0)
DATA = {
    "campaignId": "c1",
    "leadId": "l1",
    "emailId": "e1",
    "timestamp": "2026-11-23T19:00:00.000Z",
}
EVENT = validate_item({"eventType": "EMAIL_OPEN", "eventData": DATA}, now_s=NOW_S)
ROW = encode_row(EVENT, ID, NOW_MS)
ACCEPTED = Outcome(Verdict.ACCEPTED, (3, 1, 7, 8, 9))


def a_letter(**columns: Any) -> dict[str, Any]:
    """The columns of one."""
    return {
        "id": UUID(bytes=ID),
        "status": "dead",
        "event_type": "EMAIL_OPEN",
        "routing_key": "c1",
        "campaign_id": "c1",
        "failure_reason": "it would not go in",
        "sqlstate": "22003",
        "attempts": 2,
        "first_failed_at": NOW,
        "failed_at": NOW + timedelta(seconds=1),
        "log_partition": 3,
        "log_lane": "normal",
        "log_epoch": 1795459200,
        "log_seq": 1842,
        "log_index": 5,
        "flags": HIT | 2,
        "digest": b"8 bytes.",
        "occurred_us": 1,
        "encoded_row": ROW,
    } | columns


def with_json(text: bytes) -> bytes:
    """The row of an event whose customData is these bytes."""
    plain = encode_row(
        Event(EVENT.type, EVENT.data | {"customData": {}}, EVENT.occurred_us, high=False),
        ID,
        NOW_MS,
    )
    empty = struct.pack(">i", 3) + b"\x01{}"
    assert plain.count(empty) == 1
    return plain.replace(empty, struct.pack(">i", 1 + len(text)) + b"\x01" + text)


def test_a_letter_holds_the_event_and_what_became_of_it() -> None:
    shown = show(a_letter())

    assert shown == {
        "id": str(UUID(bytes=ID)),
        "eventType": "EMAIL_OPEN",
        "eventData": DATA,
        "failureReason": "it would not go in",
        "failedAt": "2026-11-23T19:20:01.000Z",
        "attempts": 2,
        "position": {
            "partition": 3,
            "lane": "normal",
            "position": "1795459200-1842",
            "index": 5,
        },
        "status": "dead",
        "campaignId": "c1",
        "firstFailedAt": "2026-11-23T19:20:00.000Z",
        "sqlstate": "22003",
    }


@pytest.mark.parametrize(
    "row",
    [
        b"",
        ROW[:-1],
        ROW[:40],
        ROW.replace(b"l1", b"\xff1"),
        ROW.replace(struct.pack(">i", 2), struct.pack(">i", 2**31 - 1), 1),
        ROW.replace(struct.pack(">iq", 8, EVENT.occurred_us - 946_684_800_000_000),
                    struct.pack(">iq", 8, 2**63 - 1)),
        with_json(b"{"),
        with_json(b"\xff"),
        with_json(b'{"a": NaN}'),
        with_json(b'{"a": "\\ud800"}'),
        with_json(b"[" * 100_000),
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_read_is_shown_as_bytes(row: bytes) -> None:
    """The letter exists because its event is odd; looking at it must not fail too."""
    shown = show(a_letter(encoded_row=row))

    assert shown["eventData"] is None
    assert base64.b64decode(shown["raw"]) == row


def test_what_can_be_read_is_shown_however_odd_it_is() -> None:
    text = '{"n": 1180591620717411303424, "z": "a\\u0000b", "e": 1e300, "\N{ROCKET}": []}'

    shown = show(a_letter(encoded_row=with_json(text.encode())))

    assert shown["eventData"]["customData"] == json.loads(text)
    assert "raw" not in shown


@given(st.binary(max_size=300) | st.binary(max_size=20).map(lambda odd: ROW[:90] + odd + ROW[90:]))
def test_whatever_a_row_holds_the_letter_can_be_sent_as_json(row: bytes) -> None:
    shown = show(a_letter(encoded_row=row))

    json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
    assert ("raw" in shown) == (shown["eventData"] is None)


@pytest.mark.parametrize("token", [None, "a token"])
def test_a_letter_is_sent_again_as_the_same_event(token: str | None) -> None:
    first = Router(16, b"a secret").route(EVENT, ID, single=True, token=token)
    letter = a_letter(
        flags=first.flags,
        digest=first.digest,
        occurred_us=first.occurred_us,
        encoded_row=first.row,
        routing_key=first.key,
        log_partition=first.partition,
    )

    again = resubmit(letter)

    assert again.flags == first.flags | REDRIVE
    assert again == Submission(
        first.partition,
        first.key,
        first.lane,
        again.flags,
        first.event_id,
        first.digest,
        first.occurred_us,
        first.row,
    )
    assert resubmit(letter | {"flags": again.flags}) == again


def test_a_letter_keeps_its_lane_unless_it_was_parked() -> None:
    lanes = {lane: LANES[resubmit(a_letter(log_lane=lane)).lane] for lane in LANES}

    assert lanes == {Lane.HIGH: Lane.HIGH, Lane.NORMAL: Lane.NORMAL, Lane.PARKED: Lane.NORMAL}


# -- many of them --------------------------------------------------------------------


def letters_in(*partitions: int) -> list[Submission]:
    """Letters on their way, one for each of these partitions."""
    return [resubmit(a_letter(log_partition=one)) for one in partitions]


def test_a_run_that_found_nothing_is_a_success() -> None:
    assert RedriveRun().answer(60_000) == (
        202,
        {"success": True, "redriven": 0, "failed": 0},
        {},
    )


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict])
def test_only_what_the_log_has_counts_as_redriven(verdict: Verdict) -> None:
    run = RedriveRun()
    submissions = run.choose(letters_in(0, 1))
    run.settle(submissions, [Outcome(verdict, retry_after_s=2.5), ACCEPTED])

    status, body, headers = run.answer(60_000)

    assert (status, body["success"], body["redriven"], body["failed"]) == (207, True, 1, 1)
    assert (body["retryAfter"], headers) == (3, {"Retry-After": "3"})


def test_a_partition_that_refused_a_letter_is_not_asked_again() -> None:
    run = RedriveRun()
    first = run.choose(letters_in(0, 1, 0))
    run.settle(first, [ACCEPTED, Outcome(Verdict.AWAY), ACCEPTED])

    second = run.choose(letters_in(1, 0, 1))

    assert [one.partition for one in second] == [0]
    assert (run.redriven, run.failed) == (2, 3)
    run.settle(second, [ACCEPTED])
    assert run.answer(60_000)[1] | {"error": "", "retryAfter": 0} == {
        "success": True,
        "redriven": 3,
        "failed": 3,
        "error": "",
        "retryAfter": 0,
    }


def test_a_run_of_which_the_log_took_nothing_may_be_tried_again() -> None:
    run = RedriveRun()
    run.settle(run.choose(letters_in(0)), [Outcome(Verdict.FULL, retry_after_s=900)])

    status, body, headers = run.answer(5_000)

    assert (status, body["success"], body["failed"]) == (503, False, 1)
    assert headers == {"Retry-After": "5"}


def failed(letter: int, at: datetime, attempts: int = 1) -> dict[str, Any]:
    return {"id": UUID(int=letter), "failed_at": at, "attempts": attempts}


def test_a_letter_is_new_once_and_again_when_it_failed_again() -> None:
    new = NewLetters(NOW)
    first, second = failed(1, NOW + timedelta(seconds=1)), failed(2, NOW + timedelta(seconds=2))
    assert new.of([first]) == [first]
    assert new.of([first, second]) == [second]
    again = failed(1, NOW + timedelta(seconds=3), attempts=2)
    assert new.of([second, again]) == [again]


def test_a_letter_that_was_committed_after_a_younger_one_is_found() -> None:
    """Its transaction began earlier, and that is its date."""
    new = NewLetters(NOW)
    young, late = failed(1, NOW + timedelta(seconds=10)), failed(2, NOW + timedelta(seconds=7))
    new.of([young])
    assert new.since <= late["failed_at"]
    assert new.of([late, young]) == [late]


def test_what_cannot_be_found_again_is_not_remembered() -> None:
    new = NewLetters(NOW)
    for second in range(1000):
        new.of([failed(second, NOW + timedelta(seconds=second))])
    assert len(new._seen) < 10
