"""Events over the API: what each answer says, and that what it says is so."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
import zstandard

from ray_tracking.pipeline.rate import RatePolicy
from tests.support.events import item
from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

ZEROS = {"processed": 0, "duplicates": 0, "invalid": 0, "rateLimited": 0, "overloaded": 0}


def fresh(kind: str = "EMAIL_OPEN", **data: Any) -> dict[str, Any]:
    """An event of a campaign of its own."""
    if kind == "ACCOUNT_HEALTH_UPDATE":
        return item(kind, **data)
    return item(kind, **{"campaignId": f"campaign-{uuid4()}"} | data)


def counts(**more: int) -> dict[str, int]:
    """The five counts of a batch, zero where not given."""
    return ZEROS | more


def counted(answer: Answer) -> dict[str, int]:
    """The five counts of an answer."""
    return {name: answer.json[name] for name in ZEROS}


def waits(answer: Answer) -> int:
    """The seconds of ``Retry-After``: the header and the body agree."""
    text = answer.headers["Retry-After"]
    assert text.isdigit()
    assert int(text) >= 1
    return int(text)


# -- one event -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/events", "/webhook/tracking"])
async def test_an_accepted_event_is_answered_with_its_place_and_becomes_that_row(
    service: Service, shared: Stack, path: str
) -> None:
    event = fresh()

    answer = await service.post(path, event)

    assert answer.status == 202
    body = answer.json
    assert list(body) == ["success", "eventId", "mode", "duplicate", "result", "processingTime"]
    assert (body["success"], body["duplicate"]) == (True, False)
    assert body["mode"] in ("REALTIME", "BATCH", "HYBRID")
    assert body["processingTime"] > 0
    place = body["result"]
    (row,) = await eventually(
        lambda: shared.sql("SELECT * FROM events WHERE event_id = $1", UUID(body["eventId"]))
    )
    assert place == {
        "partition": row["log_partition"],
        "lane": "normal",
        "position": f"{row['log_epoch']}-{row['log_seq']}",
        "index": row["log_index"],
    }
    assert row["lead_id"] == event["eventData"]["leadId"]


async def test_a_caller_sees_its_own_event_id_again(service: Service) -> None:
    answer = await service.post("/events", fresh(eventId="mine"))

    assert (answer.status, answer.json["eventId"]) == (202, "mine")


@pytest.mark.parametrize(
    "event",
    [
        fresh("EMAIL_BOUNCE"),
        fresh("CAMPAIGN_STATUS_CHANGE"),
        fresh("ACCOUNT_HEALTH_UPDATE"),
        fresh() | {"metadata": {"priority": "high"}},
    ],
    ids=["bounce", "status", "health", "said so"],
)
async def test_what_is_urgent_takes_the_lane_that_overtakes(
    service: Service, event: dict[str, Any]
) -> None:
    answer = await service.post("/events", event)

    assert (answer.status, answer.json["result"]["lane"]) == (202, "high")


async def test_a_duplicate_is_answered_with_the_first_ones_id_and_place(service: Service) -> None:
    event = fresh()
    first = await service.post("/events", event)

    again = await service.post("/events", event)

    assert again.status == 200
    assert again.json | {"processingTime": 0} == first.json | {
        "duplicate": True,
        "processingTime": 0,
    }


async def test_an_event_id_is_unique_in_its_campaign_and_nowhere_else(service: Service) -> None:
    one, two = fresh(eventId="id"), fresh(eventId="id")
    changed = fresh("EMAIL_REPLY", eventId="id", campaignId=one["eventData"]["campaignId"])

    answers = [await service.post("/events", event) for event in (one, two, changed)]

    assert [answer.status for answer in answers] == [202, 202, 200]


async def test_an_event_with_an_id_is_no_duplicate_of_one_that_only_looks_alike(
    service: Service,
) -> None:
    event = fresh()
    named = {**event, "eventData": event["eventData"] | {"eventId": "id"}}

    statuses = [(await service.post("/events", e)).status for e in (event, named, event, named)]

    assert statuses == [202, 202, 200, 200]


async def test_an_idempotency_key_stands_in_for_an_event_id(service: Service) -> None:
    campaign = f"campaign-{uuid4()}"
    key = {"Idempotency-Key": '"one key"'}
    first = await service.post("/events", fresh(campaignId=campaign), headers=key)
    other = await service.post("/events", fresh(campaignId=campaign), headers=key)
    own = await service.post("/events", fresh(campaignId=campaign, eventId="own"), headers=key)

    assert [first.status, other.status, own.status] == [202, 200, 202]
    assert other.json["eventId"] == first.json["eventId"]
    assert own.json["eventId"] == "own"


@pytest.mark.parametrize("key", ["", '""', "x" * 129, "tab\there"])
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
async def test_an_idempotency_key_that_is_none_is_refused(
    service: Service, path: str, key: str
) -> None:
    answer = await service.post(path, [fresh()], headers={"Idempotency-Key": key})

    assert answer.status == 400
    assert "Idempotency-Key" in answer.json["error"]


async def test_the_mode_that_an_operator_has_fixed_is_the_mode_that_is_told(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service(processing_mode="batch")

    assert (await service.post("/events", fresh())).json["mode"] == "BATCH"
    urgent = fresh() | {"metadata": {"priority": "high"}}
    assert (await service.post("/events", urgent)).json["mode"] == "REALTIME"


async def test_a_users_own_rule_refuses_and_its_failure_refuses_too(stack: Stack) -> None:
    """Letting an event through because the rule broke would be the silent choice."""

    def no_interns(event_type: str, data: dict[str, Any]) -> tuple[str, str] | None:
        return ("leadId", "is an intern") if data["leadId"] == "intern" else None

    def broken(event_type: str, data: dict[str, Any]) -> None:
        if data["leadId"] == "odd":
            raise KeyError(event_type)

    await stack.shard()
    service = await stack.service(rules=[no_interns, broken])

    refused = await service.post("/events", fresh(leadId="intern"))
    failed = await service.post("/events", fresh(leadId="odd"))
    passed = await service.post("/events", fresh(leadId="manager"))

    assert [refused.status, failed.status, passed.status] == [422, 422, 202]
    assert refused.json["details"] == [{"field": "leadId", "message": "is an intern"}]
    assert "broken" in failed.json["details"][0]["message"]


# -- batches -------------------------------------------------------------------------


def as_object(items: list[Any]) -> bytes:
    return json.dumps({"events": items}).encode()


def as_array(items: list[Any]) -> bytes:
    return json.dumps(items).encode()


def as_lines(items: list[Any]) -> bytes:
    return b"\r\n\n".join(json.dumps(entry).encode() for entry in items)


@pytest.mark.parametrize("encoding", [None, "gzip", "zstd"])
@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        (as_object, "application/json"),
        (as_array, "application/json; charset=UTF-8"),
        (as_lines, "application/x-ndjson"),
    ],
)
async def test_a_batch_is_read_in_each_of_its_forms(
    service: Service, form: Any, content_type: str, encoding: str | None
) -> None:
    items = [fresh(), fresh("LINK_CLICK"), fresh()]
    items[1]["data"] = items[1].pop("eventData")
    body = form(items)
    headers = {"Content-Type": content_type}
    if encoding:
        headers["Content-Encoding"] = encoding
        body = gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)

    answer = await service.post("/events/batch", body=body, headers=headers)

    assert answer.status == 200
    assert answer.json | {"processingTime": 0} == {
        "success": True,
        **counts(processed=3),
        "broadcasted": 3,
        "processingTime": 0,
        "breakdown": [
            {"eventType": "EMAIL_OPEN", **counts(processed=2)},
            {"eventType": "LINK_CLICK", **counts(processed=1)},
        ],
        "errors": [],
    }


async def test_one_bad_item_refuses_no_other(service: Service, shared: Stack) -> None:
    good = [fresh(), fresh()]
    unlike = fresh(leadId=None)
    unlike["eventType"] = "EMAIL_SNEEZED"
    items = [good[0], fresh(leadId=None), good[1], good[0], unlike, "no object"]

    answer = await service.post("/events/batch", {"events": items})

    assert answer.status == 207
    body = answer.json
    assert body["success"] is True
    assert counted(answer) == counts(processed=2, duplicates=1, invalid=3)
    assert sum(counted(answer).values()) == len(items)
    assert body["breakdown"] == [
        {"eventType": "EMAIL_OPEN", **counts(processed=2, duplicates=1, invalid=1)},
        {"eventType": None, **counts(invalid=2)},
    ]
    assert [error["index"] for error in body["errors"]] == [1, 4, 5]
    assert body["errors"][0] == {
        "index": 1,
        "error": "Event validation failed",
        "details": [{"field": "leadId", "message": "is required"}],
    }
    assert body["errors"][1]["details"][0]["field"] == "eventType"
    for event in good:
        campaign = event["eventData"]["campaignId"]
        await eventually(
            lambda c=campaign: shared.sql("SELECT 1 FROM events WHERE campaign_id = $1", c)
        )


async def test_a_line_that_is_no_json_refuses_no_other(service: Service) -> None:
    lines = b"\n".join([as_array([1])[1:], json.dumps(fresh()).encode(), b"\xff", b"{"])

    answer = await service.post(
        "/events/batch", body=lines, headers={"Content-Type": "application/x-ndjson"}
    )

    assert answer.status == 207
    assert counted(answer) == counts(processed=1, invalid=3)
    assert [error["index"] for error in answer.json["errors"]] == [0, 2, 3]


async def test_a_batch_of_which_nothing_was_valid_is_no_success(service: Service) -> None:
    answer = await service.post("/events/batch", [1, 2])

    assert (answer.status, answer.json["success"]) == (207, False)
    assert counted(answer) == counts(invalid=2)


async def test_a_batch_of_duplicates_is_a_success(service: Service) -> None:
    """A client that repeats what it got no answer to must be able to stop."""
    items = [fresh(), fresh()]
    await service.post("/events/batch", items)

    answer = await service.post("/events/batch", items)

    assert (answer.status, answer.json["success"]) == (200, True)
    assert counted(answer) == counts(duplicates=2)


async def test_the_key_of_a_batch_counts_for_each_item_by_its_place(service: Service) -> None:
    campaign = f"campaign-{uuid4()}"
    key = {"Idempotency-Key": "a batch"}
    two = [fresh("EMAIL_REPLY", campaignId=campaign) for _ in range(2)]
    three = [fresh("EMAIL_REPLY", campaignId=campaign) for _ in range(3)]
    first = await service.post("/events/batch", two, headers=key)

    again = await service.post("/events/batch", three, headers=key)

    assert (first.status, counted(first)) == (200, counts(processed=2))
    assert (again.status, counted(again)) == (200, counts(processed=1, duplicates=2))


async def test_a_batch_of_ten_thousand_is_taken(service: Service, shared: Stack) -> None:
    campaigns = [f"campaign-{uuid4()}" for _ in range(2)]
    items = [item(campaignId=campaigns[n % 2]) for n in range(10_000)]

    answer = await service.post("/events/batch", items)

    assert (answer.status, counted(answer)) == (200, counts(processed=10_000))

    async def are_rows() -> bool:
        (row,) = await shared.sql(
            "SELECT count(*) AS n FROM events WHERE campaign_id = ANY($1)", campaigns
        )
        return bool(row["n"] == 10_000)

    await eventually(are_rows, within_s=20)


# -- over the rate -------------------------------------------------------------------


async def test_a_campaign_over_its_rate_is_told_when_to_come_again(stack: Stack) -> None:
    await stack.shard(rate=RatePolicy(max_events=2))
    service = await stack.service()
    for _ in range(2):
        assert (await service.post("/events", item())).status == 202
    same = item()

    answer = await service.post("/events", same)

    assert answer.status == 429
    assert answer.json == {
        "success": False,
        "error": "Rate limit exceeded",
        "retryAfter": waits(answer),
    }
    assert waits(answer) <= 60
    assert (await service.post("/events", same)).status == 429
    assert (await service.post("/events", item(campaignId="another"))).status == 202


async def test_retry_after_never_outlasts_the_idempotency_window(stack: Stack) -> None:
    """A client that came back later could not be recognised any more."""
    await stack.shard(rate=RatePolicy(max_events=1))
    service = await stack.service(idempotency_window_ms=3000)
    await service.post("/events", item())

    answers = [
        await service.post("/events", item()),
        await service.post("/events/batch", [item(), item()]),
    ]

    assert [answer.status for answer in answers] == [429, 429]
    assert all(waits(answer) <= 3 for answer in answers)


async def test_single_events_have_a_cap_of_their_own_and_batches_do_not(stack: Stack) -> None:
    await stack.shard(rate=RatePolicy(burst=3))
    service = await stack.service()

    statuses = [(await service.post("/events", item())).status for _ in range(4)]
    batch = await service.post("/events/batch", [item() for _ in range(20)])

    assert statuses == [202, 202, 202, 429]
    assert (batch.status, counted(batch)) == (200, counts(processed=20))


async def test_a_batch_that_is_over_the_rate_in_part_says_which_and_when(stack: Stack) -> None:
    await stack.shard(rate=RatePolicy(max_events=2))
    service = await stack.service()

    answer = await service.post("/events/batch", [item() for _ in range(3)])

    assert answer.status == 207
    assert counted(answer) == counts(processed=2, rateLimited=1)
    (error,) = answer.json["errors"]
    assert error == {
        "index": 2,
        "error": "Rate limit exceeded",
        "retryAfter": error["retryAfter"],
    }
    assert 1 <= error["retryAfter"] <= 60


async def test_a_batch_that_is_wholly_over_the_rate_is_a_429(stack: Stack) -> None:
    await stack.shard(rate=RatePolicy(max_events=1))
    service = await stack.service()
    await service.post("/events", item())

    answer = await service.post("/events/batch", [item(), item()])
    mixed = await service.post("/events/batch", [item(), "no object"])

    assert (answer.status, counted(answer)) == (429, counts(rateLimited=2))
    assert (answer.json["success"], answer.json["error"]) == (False, "Rate limit exceeded")
    assert waits(answer) <= 60
    assert (mixed.status, counted(mixed)) == (207, counts(rateLimited=1, invalid=1))


# -- a log that does not answer ------------------------------------------------------


async def test_a_shard_out_of_reach_is_a_503_and_the_retry_is_taken(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service(patience_s=0.2)
    stack.unreachable = {0}
    event = item()

    single = await service.post("/events", event)
    batch = await service.post("/events/batch", [item(), item()])

    assert (single.status, batch.status) == (503, 503)
    assert single.json["success"] is False
    assert single.json["error"]
    assert counted(batch) == counts(overloaded=2)
    assert 1 <= waits(single) <= 60
    assert 1 <= waits(batch) <= 60
    stack.unreachable = set()
    assert (await service.post("/events", event)).status == 202


async def test_a_shard_that_comes_back_in_time_is_waited_for(stack: Stack) -> None:
    """A shard that is replaced takes a moment: its callers need not notice."""
    await stack.shard()
    service = await stack.service()
    stack.unreachable = {0}
    posting = asyncio.create_task(service.post("/events", item()))
    await asyncio.wait([posting], timeout=0.3)
    stack.unreachable = set()

    assert (await posting).status == 202


async def test_items_of_a_shard_out_of_reach_hold_up_no_others(stack: Stack) -> None:
    await stack.shard("shard-0", partitions=[0, 1])
    await stack.shard("shard-1", partitions=[2, 3])
    service = await stack.service(shard_of=lambda partition: partition // 2, patience_s=0.2)
    stack.unreachable = {1}
    here, there = (stack.campaign_in(partition) for partition in (0, 3))

    answer = await service.post(
        "/events/batch", [item(campaignId=campaign) for campaign in (there, here, there)]
    )

    assert answer.status == 207
    assert counted(answer) == counts(processed=1, overloaded=2)
    assert [error["index"] for error in answer.json["errors"]] == [0, 2]
    assert all(1 <= error["retryAfter"] <= 60 for error in answer.json["errors"])
    assert (await service.post("/events", item(campaignId=here))).status == 202


async def test_an_event_whose_answer_was_lost_is_appended_once(stack: Stack) -> None:
    """The shard hung after the call had reached it; ingress repeats it with the same id."""
    await stack.shard()
    service = await stack.service(patience_s=0.2)
    event = item("EMAIL_REPLY")
    stack.answering.clear()
    started = time.monotonic()

    assert (await service.post("/events", event)).status == 503
    assert time.monotonic() - started < 3
    stack.answering.set()

    assert (await service.post("/events", event)).status in (200, 202)
    assert len(await stack.logged_ids()) == 1


async def test_a_call_that_fails_in_an_unknown_way_leaves_nobody_waiting(stack: Stack) -> None:
    """Whatever is wrong with the first call, those who queue behind it get an answer."""
    await stack.shard()
    service = await stack.service(patience_s=0.5)
    stack.fails_with = RuntimeError("nobody thought of this")

    answers = await asyncio.gather(*[service.post("/events", item()) for _ in range(5)])

    assert {answer.status for answer in answers} == {503}
    stack.fails_with = None
    assert (await service.post("/events", item())).status == 202


async def full(stack: Stack) -> tuple[Service, list[asyncio.Task[Answer]]]:
    """A service without room, and the requests that have taken it: until the shard answers."""
    await stack.shard()
    service = await stack.service(
        max_buffer_size=4,
        backpressure_thresholds={"warning": 1, "critical": 2, "emergency": 3},
    )
    stack.answering.clear()
    waiting = [asyncio.create_task(service.post("/events", item())) for _ in range(4)]
    await eventually(lambda: service.ports.gatherer.room.events == 4)
    return service, waiting


async def test_a_buffer_that_is_full_refuses_at_once(stack: Stack) -> None:
    service, waiting = await full(stack)

    answer = await service.post("/events", item())

    assert answer.status == 503
    assert waits(answer) <= 60
    stack.answering.set()
    assert {(await task).status for task in waiting} == {202}
    assert (await service.post("/events", item())).status == 202


@pytest.mark.parametrize(("goes_on", "status"), [(True, 200), (False, 503)])
async def test_a_batch_waits_a_moment_for_room(stack: Stack, goes_on: bool, status: int) -> None:
    service, before = await full(stack)

    batch = asyncio.create_task(service.post("/events/batch", [item(), item()]))
    await eventually(lambda: service.ports.turns.pace.waiting_bytes > 0)
    if goes_on:
        stack.answering.set()

    answer = await batch
    assert answer.status == status
    assert goes_on or waits(answer) <= 60
    stack.answering.set()
    assert {(await task).status for task in before} == {202}


async def test_events_are_taken_while_postgres_is_away(stack: Stack) -> None:
    proxy, url = await stack.postgres_proxy()
    proxy.refuse()
    await stack.shard(database_url=url)
    await stack.writer(database_url=url)
    service = await stack.service(database_url=url)

    assert (await service.post("/events", item())).status == 202
    assert (await service.post("/events/batch", [item(), item()])).status == 200
    await proxy.accept()

    await eventually(lambda: _rows(stack, 3))


async def _rows(stack: Stack, number: int) -> bool:
    return await stack.count() == number
