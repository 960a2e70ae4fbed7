"""Dead letters over the API: found, shown, sent again, given up."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import pytest

from ray_tracking.http import dead_letters
from ray_tracking.http.openapi import document
from ray_tracking.pipeline.gather import Outcome
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import HIT, REDRIVE, SINGLE, Submission
from ray_tracking.stores.dead_letters import LetterFilter
from tests.support.events import item
from tests.support.letters import REASON, logged, put_letter, status_of
from tests.support.service import Answer, Service
from tests.support.stack import HIGH, NORMAL, PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

START = datetime(2026, 11, 20, 19, tzinfo=UTC)
NOBODY = "01a20a02-cecb-7c3e-9cc4-b1f8e33ac75f"
COMPONENTS = document("http://127.0.0.1")["components"]


def is_a(schema: str, value: Any) -> bool:
    """Whether an answer is as ``/openapi.json`` describes it."""
    described = {"$ref": f"#/components/schemas/{schema}", "components": COMPONENTS}
    jsonschema.Draft202012Validator(described).validate(value)
    return True


def a_campaign() -> str:
    """One that nobody else uses."""
    return f"campaign-{uuid4()}"


async def listed(service: Service, query: str) -> dict[str, Any]:
    """One page of letters."""
    answer = await service.get(f"/dead-letters?{query}")
    assert answer.status == 200, answer.body
    assert is_a("DeadLetterPage", answer.json)
    page: dict[str, Any] = answer.json
    return page


async def all_pages(service: Service, query: str, limit: int) -> list[UUID]:
    """The ids of all letters, page by page."""
    ids: list[UUID] = []
    page = await listed(service, f"limit={limit}&{query}")
    while True:
        ids += [UUID(letter["id"]) for letter in page["items"]]
        if page["next"] is None:
            return ids
        assert len(page["items"]) == limit
        page = await listed(service, f"limit={limit}&after={page['next']}&{query}")


def refused(answer: Answer, status: int) -> str:
    """The reason of a refusal that is as it should be."""
    assert answer.status == status, answer.body
    assert is_a("ComeAgain" if status == 503 else "Error", answer.json)
    if status == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    reason: str = answer.json["error"]
    return reason


# -- looking -------------------------------------------------------------------------


async def test_a_letter_shows_the_event_as_it_was_accepted_and_why_it_failed(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()
    event = item("EMAIL_REPLY", campaignId=campaign, subject="Re: hello", customData={"n": 2**70})
    event["eventData"]["timestamp"] = "2026-11-20T19:00:00.000Z"
    submission = shared.event("EMAIL_REPLY", **event["eventData"])
    letter_id = await put_letter(shared, submission, failed_at=START, attempts=3)

    answer = await service.get(f"/dead-letters/{letter_id}")

    assert answer.status == 200
    assert answer.json == {
        "id": str(letter_id),
        "eventType": "EMAIL_REPLY",
        "eventData": event["eventData"],
        "failureReason": REASON,
        "failedAt": "2026-11-20T19:00:00.000Z",
        "attempts": 3,
        "position": {
            "partition": submission.partition,
            "lane": "normal",
            "position": "1795459200-1842",
            "index": 7,
        },
        "status": "dead",
        "campaignId": campaign,
        "firstFailedAt": "2026-11-20T19:00:00.000Z",
        "sqlstate": "23514",
    }
    assert is_a("DeadLetter", answer.json)
    assert await listed(service, f"campaignId={campaign}") == {
        "items": [answer.json],
        "next": None,
    }


async def test_an_event_of_no_campaign_and_a_failure_without_a_code_are_shown(
    service: Service, shared: Stack
) -> None:
    letter_id = await put_letter(shared, sqlstate=None, event_type="ACCOUNT_HEALTH_UPDATE")

    letter = (await service.get(f"/dead-letters/{letter_id}")).json

    assert is_a("DeadLetter", letter)
    assert (letter["campaignId"], letter["sqlstate"]) == (None, None)
    assert letter["eventData"]["accountId"].startswith("account-")


@pytest.mark.parametrize("odd", [b"", b"\xff" * 40, b"\0\0\0\x10" * 9])
async def test_a_row_that_cannot_be_read_is_shown_as_it_is(
    service: Service, shared: Stack, odd: bytes
) -> None:
    """The letter exists because something about it is odd; that must not hide it."""
    campaign = a_campaign()
    letter_id = await put_letter(shared, row=odd, campaignId=campaign)

    (letter,) = (await listed(service, f"campaignId={campaign}"))["items"]

    assert letter["eventData"] is None
    assert base64.b64decode(letter["raw"]) == odd
    assert (await service.get(f"/dead-letters/{letter_id}")).json == letter


async def test_letters_are_listed_newest_first_and_each_once(
    service: Service, shared: Stack
) -> None:
    """Also where many failed at the same moment, as all of one flush do."""
    campaign = a_campaign()
    ids = [
        await put_letter(shared, campaignId=campaign, failed_at=START + timedelta(seconds=n // 4))
        for n in range(10)
    ]
    # Ids minted in one millisecond have no order of their own.
    newest_first = [*sorted(ids[8:])[::-1], *sorted(ids[4:8])[::-1], *sorted(ids[:4])[::-1]]

    for limit in (1, 3, 10, 1000):
        assert await all_pages(service, f"campaignId={campaign}", limit) == newest_first


async def test_a_cursor_stays_where_it_is_while_letters_arrive(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()
    old = [
        await put_letter(shared, campaignId=campaign, failed_at=START + timedelta(microseconds=n))
        for n in range(4)
    ]
    first = await listed(service, f"campaignId={campaign}&limit=2")
    await put_letter(shared, campaignId=campaign)

    second = await listed(service, f"campaignId={campaign}&limit=2&after={first['next']}")

    seen = [UUID(letter["id"]) for page in (first, second) for letter in page["items"]]
    assert seen == old[::-1]


async def test_letters_are_chosen_by_campaign_reason_and_status(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()

    async def put(reason: str, sqlstate: str | None, status: str) -> UUID:
        return await put_letter(
            shared, campaignId=campaign, reason=reason, sqlstate=sqlstate, status=status
        )

    check = await put(REASON, "23514", "dead")
    cast = await put("value 100% out of range: \N{ROCKET}", "22003", "redriven")
    killed = await put("it ended its writer", None, "discarded")
    await put_letter(shared)

    async def chosen(query: str) -> set[UUID]:
        return set(await all_pages(service, f"campaignId={campaign}&{query}", 2))

    assert await chosen("") == {check, cast, killed}
    assert await chosen("reason=no_opens") == {check}
    assert await chosen("reason=NO_OPENS") == {check}
    assert await chosen("reason=22003") == {cast}
    assert await chosen("reason=100%25") == {cast}
    assert await chosen("reason=%F0%9F%9A%80") == {cast}
    assert await chosen("reason=n_%25s") == set()
    assert await chosen("reason=2200") == set()
    assert await chosen("status=dead") == {check}
    assert await chosen("status=redriven") == {cast}
    assert await chosen("status=discarded") == {killed}
    assert await chosen("status=dead&reason=22003") == set()
    assert check not in await all_pages(service, "campaignId=another", 100)


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("status=alive", "status", "dead, redriven, discarded"),
        ("status=", "status", "dead"),
        ("reason=", "reason", "text"),
        ("reason=a%00b", "reason", "control"),
        ("campaignId=", "campaignId", "text"),
        ("campaignId=%00", "campaignId", "control"),
        ("limit=0", "limit", "1000"),
        ("limit=1001", "limit", "1000"),
        ("after=nonsense", "after", "cursor"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(
    service: Service, query: str, field: str, reason: str
) -> None:
    answer = await service.get(f"/dead-letters?{query}")

    assert answer.status == 422
    assert is_a("Invalid", answer.json)
    (detail,) = answer.json["details"]
    assert detail["field"] == field
    assert reason in detail["message"]


@pytest.mark.parametrize("letter", [NOBODY, "1", "%00", "redrive", "%C3%A9", "x" * 5000])
@pytest.mark.parametrize(("method", "action"), [("GET", ""), ("DELETE", ""), ("POST", "/redrive")])
async def test_a_letter_that_is_not_there_is_a_404(
    service: Service, method: str, action: str, letter: str
) -> None:
    refused(await service.call(method, f"/dead-letters/{letter}{action}"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/dead-letters", {"GET", "HEAD"}),
        ("PUT", f"/dead-letters/{NOBODY}", {"GET", "HEAD", "DELETE"}),
        ("GET", f"/dead-letters/{NOBODY}/redrive", {"POST"}),
        ("PUT", "/dead-letters/redrive", {"POST"}),
    ],
)
async def test_another_method_is_told_which_to_use(
    service: Service, method: str, path: str, allowed: set[str]
) -> None:
    answer = await service.call(method, path)

    refused(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


# -- giving up -----------------------------------------------------------------------


async def test_a_discarded_letter_stays_to_be_seen_and_cannot_be_sent_again(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()
    letter_id = await put_letter(shared, campaignId=campaign)
    before = (await service.get(f"/dead-letters/{letter_id}")).json

    answers = [await service.call("DELETE", f"/dead-letters/{letter_id}") for _ in range(2)]

    for answer in answers:
        assert answer.status == 200
        assert is_a("Discarded", answer.json)
        assert answer.json == {"success": True, "id": str(letter_id), "status": "discarded"}
    after = (await service.get(f"/dead-letters/{letter_id}")).json
    assert after == before | {"status": "discarded"}
    assert "discarded" in refused(await service.post(f"/dead-letters/{letter_id}/redrive"), 409)
    many = await service.post("/dead-letters/redrive", {"campaignId": campaign})
    assert many.json == {"success": True, "redriven": 0, "failed": 0}


async def test_a_letter_that_became_a_row_can_neither_be_discarded_nor_sent_again(
    service: Service, shared: Stack
) -> None:
    letter_id = await put_letter(shared, status="redriven")

    assert "redriven" in refused(await service.call("DELETE", f"/dead-letters/{letter_id}"), 409)
    assert "redriven" in refused(await service.post(f"/dead-letters/{letter_id}/redrive"), 409)
    assert await status_of(shared, letter_id) == "redriven"


# -- sending again, up to the log ----------------------------------------------------


async def test_a_letter_goes_to_the_log_as_the_same_event(stack: Stack) -> None:
    """Its id, identity and row are the old ones, and a flag says what it is."""
    await stack.shard()
    service = await stack.service()
    first = stack.event(single=True)
    letter_id = await put_letter(stack, first)

    answer = await service.post(f"/dead-letters/{letter_id}/redrive")

    assert answer.status == 202
    assert answer.json == {"success": True, "id": str(letter_id), "redriven": 1}
    assert is_a("Redriven", answer.json)
    (again,) = await logged(stack)
    assert again.flags == first.flags | REDRIVE
    assert again.flags & SINGLE
    assert (again.event_id, again.digest, again.row, again.key, again.occurred_us) == (
        first.event_id,
        first.digest,
        first.row,
        first.key,
        first.occurred_us,
    )
    # Only the flush that makes a row of it may say that it is one.
    assert await status_of(stack, letter_id) == "dead"


@pytest.mark.parametrize(("stood", "goes"), [(HIGH, HIGH), (NORMAL, NORMAL), (PARKED, NORMAL)])
async def test_a_letter_keeps_its_lane_but_is_not_parked_again(
    stack: Stack, stood: int, goes: int
) -> None:
    await stack.shard()
    service = await stack.service()
    hit = stack.event(token="a token")
    letter_id = await put_letter(stack, hit, lane=stood)

    assert (await service.post(f"/dead-letters/{letter_id}/redrive")).status == 202

    (again,) = await logged(stack)
    assert (again.lane, again.flags) == (goes, hit.flags | REDRIVE)
    assert again.flags & HIT


async def test_a_letter_is_taken_past_dedup_and_rate(stack: Stack) -> None:
    """Its event is in the window already, as that of every letter of the last minute is."""
    owner = await stack.shard(rate=RatePolicy(max_events=1))
    service = await stack.service()
    event = stack.event()
    await owner.submit(event)
    letter_id = await put_letter(stack, event)

    answers = [await service.post(f"/dead-letters/{letter_id}/redrive") for _ in range(2)]

    assert [answer.status for answer in answers] == [202, 202]
    assert [one.flags & REDRIVE for one in await logged(stack)] == [0, REDRIVE, REDRIVE]


async def test_a_letter_that_the_log_does_not_take_stays_dead_and_may_be_sent_later(
    stack: Stack,
) -> None:
    await stack.shard()
    service = await stack.service(patience_s=0.1)
    letter_id = await put_letter(stack)
    stack.unreachable = {0}

    refused(await service.post(f"/dead-letters/{letter_id}/redrive"), 503)

    assert await status_of(stack, letter_id) == "dead"
    stack.unreachable = set()
    assert (await service.post(f"/dead-letters/{letter_id}/redrive")).status == 202


async def test_many_letters_are_sent_again_in_the_order_in_which_they_failed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunk by chunk, and only those that are dead."""
    monkeypatch.setattr(dead_letters, "CHUNK", 3)
    await stack.shard()
    service = await stack.service()
    ids = [
        await put_letter(stack, campaignId="c", failed_at=START - timedelta(seconds=n))
        for n in range(7)
    ]
    for status in ("redriven", "discarded"):
        await put_letter(stack, campaignId="c", status=status)

    answer = await service.post("/dead-letters/redrive")

    assert answer.status == 202
    assert answer.json == {"success": True, "redriven": 7, "failed": 0}
    assert is_a("RedriveResult", answer.json)
    assert [UUID(bytes=one.event_id) for one in await logged(stack)] == ids[::-1]


@pytest.mark.parametrize("by_query", [True, False])
async def test_letters_to_be_sent_again_are_chosen_as_they_are_listed(
    stack: Stack, by_query: bool
) -> None:
    await stack.shard()
    service = await stack.service()
    wanted = await put_letter(stack, campaignId="c", reason="a Reason")
    await put_letter(stack, campaignId="c", reason="another")
    await put_letter(stack, campaignId="d", reason="a reason")

    if by_query:
        answer = await service.post("/dead-letters/redrive?campaignId=c&reason=a%20reason")
    else:
        chosen = {"campaignId": "c", "reason": "a reason"}
        answer = await service.post("/dead-letters/redrive", chosen)

    assert answer.json == {"success": True, "redriven": 1, "failed": 0}
    assert await stack.logged_ids() == [wanted.bytes]


async def test_a_letter_that_fails_again_meanwhile_is_not_sent_twice(stack: Stack) -> None:
    service = await stack.service()
    ids = {await put_letter(stack) for _ in range(5)}
    seen = []

    async for letters in service.ports.queries.dead_letters.dead(LetterFilter(), chunk=1):
        seen += [letter["id"] for letter in letters]
        await stack.sql("UPDATE dead_letters SET failed_at = now() WHERE id = $1", seen[-1])
        assert len(seen) <= len(ids)

    assert sorted(seen) == sorted(ids)


async def test_what_one_shard_does_not_take_does_not_hold_up_the_others(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is asked once, however many letters there are for it."""
    monkeypatch.setattr(dead_letters, "CHUNK", 4)
    await stack.shard(partitions=[0, 1])
    await stack.shard("shard-1", partitions=[2, 3])
    service = await stack.service(shard_of=lambda partition: partition // 2, patience_s=0.1)
    near, far = stack.campaign_in(0), stack.campaign_in(3)
    ids = [
        await put_letter(stack, campaignId=(near, far)[n % 2], failed_at=START + timedelta(0, n))
        for n in range(40)
    ]
    stack.unreachable = {1}
    submit = service.ports.gatherer.submit
    asked: list[int] = []

    async def listen(submissions: Sequence[Submission]) -> list[Outcome]:
        asked.extend(one.partition for one in submissions)
        return await submit(submissions)

    monkeypatch.setattr(service.ports.gatherer, "submit", listen)

    answer = await service.post("/dead-letters/redrive", {})

    assert (asked.count(0), asked.count(3)) == (20, 2), "two of a chunk of four"
    assert (answer.status, answer.json["redriven"], answer.json["failed"]) == (207, 20, 20)
    assert answer.json["success"] is True
    assert is_a("RedriveResult", answer.json)
    assert int(answer.headers["Retry-After"]) == answer.json["retryAfter"] >= 1
    assert [UUID(bytes=raw) for raw in await stack.logged_ids()] == ids[::2]


async def test_when_the_log_takes_none_it_is_a_503_that_says_so(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service(patience_s=0.1)
    for _ in range(3):
        await put_letter(stack)
    stack.unreachable = {0}

    answer = await service.post("/dead-letters/redrive", {})

    assert answer.status == 503
    assert is_a("RedriveResult", answer.json)
    assert (answer.json["success"], answer.json["redriven"], answer.json["failed"]) == (False, 0, 3)
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("query", "body", "fields"),
    [
        ("", {"campaign": "c"}, ["campaign"]),
        ("", {"campaignId": None}, ["campaignId"]),
        ("", {"campaignId": ""}, ["campaignId"]),
        ("", {"reason": 7}, ["reason"]),
        ("", {"reason": "a\0b"}, ["reason"]),
        ("", {"reason": ["a"], "limit": 5}, ["reason", "limit"]),
        ("campaign=c", None, ["campaign"]),
        ("campaignId=", None, ["campaignId"]),
        ("status=dead", None, ["status"]),
        ("campaignId=c&campaignId=d", None, ["campaignId"]),
        ("campaignId=c", {"campaignId": "c"}, ["campaignId"]),
    ],
)
async def test_a_slip_in_the_filter_does_not_mean_all_letters(
    service: Service, shared: Stack, query: str, body: Any, fields: list[str]
) -> None:
    letter_id = await put_letter(shared)

    answer = await service.post(f"/dead-letters/redrive?{query}", body)

    assert answer.status == 422
    assert is_a("Invalid", answer.json)
    assert [detail["field"] for detail in answer.json["details"]] == fields
    assert letter_id.bytes not in await shared.logged_ids()


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"campaignId": "a", "campaignId": "b"}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"campaignId=c", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "' + b"x" * 1_100_000 + b'"}', "application/json", 413),
    ],
)
async def test_a_body_that_is_no_filter_is_refused(
    service: Service, body: bytes, media: str, status: int
) -> None:
    headers = {"Content-Type": media}
    answer = await service.post("/dead-letters/redrive", body=body, headers=headers)

    refused(answer, status)


# -- sending again, as far as the row ------------------------------------------------


async def test_a_letter_that_is_sent_again_when_the_cause_is_mended_becomes_one_row(
    stack: Stack,
) -> None:
    """However often it is sent."""
    await stack.shard()
    service = await stack.service()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (campaign_id <> 'poison')")
    scribe = await stack.writer()
    sent = item(campaignId="poison")
    for event in (item(), sent, item()):
        assert (await service.post("/events", event)).status == 202

    async def letters() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await listed(service, ""))["items"]
        return items

    (letter,) = await eventually(letters)
    await eventually(stack.count)
    assert "no_poison" in letter["failureReason"]
    assert letter["eventData"]["leadId"] == sent["eventData"]["leadId"]
    redrive = f"/dead-letters/{letter['id']}/redrive"

    assert (await service.post(redrive)).status == 202
    await scribe.writer.drain()
    (again,) = await letters()
    assert (again["status"], again["attempts"] > letter["attempts"]) == ("dead", True)
    assert again["failedAt"] > letter["failedAt"] >= letter["firstFailedAt"]
    assert again["firstFailedAt"] == letter["firstFailedAt"]

    await stack.sql("ALTER TABLE events DROP CONSTRAINT no_poison")
    answers = await asyncio.gather(*[service.post(redrive) for _ in range(5)])
    assert {answer.status for answer in answers} <= {202, 409}
    await scribe.writer.drain()
    assert [letter["status"] for letter in await letters()] == ["redriven"]
    ids = [str(row["event_id"]) for row in await stack.rows()]
    assert len(ids) == 3
    assert ids.count(letter["id"]) == 1


@pytest.mark.parametrize("mended", [True, False])
async def test_a_letter_discarded_on_its_way_through_the_log_stays_discarded(
    stack: Stack, mended: bool
) -> None:
    """Whether it would be a row now, or would fail again."""
    await stack.shard()
    service = await stack.service()
    if not mended:
        await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (campaign_id <> 'c9')")
    letter_id = await put_letter(stack, campaignId="c9")
    assert (await service.post(f"/dead-letters/{letter_id}/redrive")).status == 202
    assert (await service.call("DELETE", f"/dead-letters/{letter_id}")).status == 200
    assert (await service.post("/events", item())).status == 202

    scribe = await stack.writer()
    await scribe.writer.drain()

    assert await status_of(stack, letter_id) == "discarded"
    assert letter_id not in [row["event_id"] for row in await stack.rows()]
    assert await stack.count() == 1


# -- a Postgres that fails -----------------------------------------------------------


async def test_while_postgres_is_away_every_call_is_a_503_and_later_an_answer(
    stack: Stack,
) -> None:
    proxy, url = await stack.postgres_proxy()
    await stack.shard()
    service = await stack.service(database_url=url)
    letter_id = await put_letter(stack)
    calls = [
        ("GET", "/dead-letters", 200),
        ("GET", f"/dead-letters/{letter_id}", 200),
        ("POST", "/dead-letters/redrive", 202),
        ("POST", f"/dead-letters/{letter_id}/redrive", 202),
        ("DELETE", f"/dead-letters/{letter_id}", 200),
    ]

    proxy.refuse()
    proxy.cut()
    for method, path, _ in calls:
        assert "Postgres" in refused(await service.call(method, path), 503)
    await proxy.accept()

    for method, path, status in calls:
        assert (await service.call(method, path)).status == status


@pytest.mark.parametrize("ended", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_question_that_an_operator_ends_is_a_503(stack: Stack, ended: str) -> None:
    service = await stack.service()
    await service.get("/dead-letters")
    await stack.sql("BEGIN")
    await stack.sql("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
    asking = asyncio.create_task(service.get("/dead-letters"))
    await eventually(lambda: stack.sql(_WAITING))

    await stack.sql(f"SELECT {ended}(pid) FROM ({_WAITING}) waiting")

    assert "Postgres" in refused(await asking, 503)
    await stack.sql("ROLLBACK")
    assert await listed(service, "") == {"items": [], "next": None}


_WAITING = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND application_name = 'ray-tracking api'"
)
