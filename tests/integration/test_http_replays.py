"""Replays over the API: asked for, watched, stopped."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from ray_tracking.http.openapi import document
from tests.support.events import item
from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

COMPONENTS = document("http://127.0.0.1:8000")["components"]
SPAN = {"fromTimestamp": "2026-11-20T00:00:00Z", "toTimestamp": "2026-11-21T00:00:00+00:00"}


def described(answer: Answer, status: int, schema: str) -> Any:
    """An answer that is as it is described."""
    assert answer.status == status, answer.body
    reference = {"$ref": f"#/components/schemas/{schema}", "components": COMPONENTS}
    jsonschema.Draft202012Validator(reference).validate(answer.json)
    return answer.json


async def a_campaign(shared: Stack) -> str:
    """With five opens."""
    campaign = f"campaign-{uuid4()}"
    for hour in range(5):
        entry = item(campaignId=campaign, timestamp=f"2026-11-20T0{hour}:00:00Z")
        assert (await shared.services[0].post("/events", entry)).status == 202
    await shared.scribes[0].writer.drain()
    return campaign


async def ended(service: Service, replay_id: str) -> Any:
    """The replay, when it has ended."""

    async def look() -> Any:
        replay = described(await service.get(f"/replays/{replay_id}"), 200, "Replay")
        return replay if replay["status"] not in ("PENDING", "RUNNING") else None

    return await eventually(look)


async def test_a_replay_mends_what_is_wrong(service: Service, shared: Stack) -> None:
    campaign = await a_campaign(shared)
    await shared.sql("UPDATE rollup_totals SET opens = 77 WHERE campaign_id = $1", campaign)
    body = {"campaignId": campaign, **SPAN, "options": {"batchSize": 2, "eventTypes": None}}
    accepted = described(await service.post("/replays", body), 202, "ReplayAccepted")
    replay = await ended(service, accepted["replayJobId"])
    stats = (await service.get(f"/campaigns/{campaign}/stats")).json
    listed = described(await service.get("/replays?limit=1"), 200, "ReplayPage")

    assert accepted["estimatedEvents"] == 5
    assert (replay["status"], replay["processed"], replay["error"]) == ("SUCCEEDED", 5, None)
    assert stats["opens"] == 5
    assert listed["items"] == [replay]
    again = await service.call("DELETE", f"/replays/{replay['replayJobId']}")
    described(again, 409, "Error")


async def test_the_same_key_is_the_same_replay(service: Service, shared: Stack) -> None:
    body = {"campaignId": await a_campaign(shared), **SPAN}
    headers = {"Idempotency-Key": f"key {uuid4()}"}
    first = (await service.post("/replays", body, headers=headers)).json
    second = described(await service.post("/replays", body, headers=headers), 202, "ReplayAccepted")

    assert second["replayJobId"] == first["replayJobId"]
    await ended(service, first["replayJobId"])


async def test_one_that_has_not_ended_can_be_stopped(service: Service, shared: Stack) -> None:
    campaign = await a_campaign(shared)
    shared.jobs[0].starting.clear()
    body = {"campaignId": campaign, **SPAN}
    replay_id = (await service.post("/replays", body)).json["replayJobId"]
    pending = (await service.get(f"/replays/{replay_id}")).json
    stopped = await service.call("DELETE", f"/replays/{replay_id}")
    shared.jobs[0].starting.set()

    assert (pending["status"], pending["startedAt"]) == ("PENDING", None)
    assert described(stopped, 200, "ReplayStopped")["status"] == "STOPPED"
    assert (await ended(service, replay_id))["finishedAt"] is not None


async def test_without_a_dashboard_it_is_a_clear_503(service: Service, shared: Stack) -> None:
    body = {"campaignId": await a_campaign(shared), **SPAN}
    shared.jobs[0].refuses = "the Ray dashboard does not answer (no)"
    try:
        answer = await service.post("/replays", body)
    finally:
        shared.jobs[0].refuses = None

    refused = described(answer, 503, "ComeAgain")
    assert "dashboard" in refused["error"]
    assert "ray-tracking replay" in refused["error"]
    (newest,) = (await service.get("/replays?limit=1")).json["items"]
    assert (newest["status"], newest["campaignId"]) == ("FAILED", body["campaignId"])


async def test_replays_are_listed_page_by_page(service: Service, shared: Stack) -> None:
    body = {"campaignId": await a_campaign(shared), **SPAN}
    asked = [(await service.post("/replays", body)).json["replayJobId"] for _ in range(3)]
    found: list[str] = []
    after = ""
    while len(found) < 3:
        page = described(await service.get(f"/replays?limit=1{after}"), 200, "ReplayPage")
        found += [entry["replayJobId"] for entry in page["items"]]
        after = f"&after={page['next']}"

    assert found == asked[::-1]
    for replay_id in asked:
        await ended(service, replay_id)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_one_that_there_is_not_is_a_404(service: Service, method: str) -> None:
    for replay_id in ("replay-0", "%00"):
        described(await service.call(method, f"/replays/{replay_id}"), 404, "Error")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"campaignId": None}, "campaignId"),
        ({"campaignId": "a\0"}, "campaignId"),
        ({"fromTimestamp": "yesterday"}, "fromTimestamp"),
        ({"fromTimestamp": "2026-11-20T00:00:00"}, "fromTimestamp"),
        ({"fromTimestamp": "1795168800"}, "fromTimestamp"),
        ({"fromTimestamp": 1795168800}, "fromTimestamp"),
        ({"fromTimestamp": None}, "fromTimestamp"),
        ({"fromTimestamp": " "}, "fromTimestamp"),
        ({"fromTimestamp": "2026-11-20"}, "fromTimestamp"),
        ({"fromTimestamp": "0001-01-01T00:00:00+14:00"}, "fromTimestamp"),
        ({"toTimestamp": "9999-12-31T23:59:59-14:00"}, "toTimestamp"),
        ({"toTimestamp": "1795255200.5"}, "toTimestamp"),
        ({"toTimestamp": "2026-11-19T00:00:00Z"}, "toTimestamp"),
        ({"options": {"batchSize": 0}}, "options.batchSize"),
        ({"options": {"batchSize": "many"}}, "options.batchSize"),
        ({"options": {"eventTypes": ["EMAIL_OPENED"]}}, "options.eventTypes.0"),
        ({"options": {"eventTypes": []}}, "options.eventTypes"),
        ({"options": {"dryRun": True}}, "options.dryRun"),
        ({"more": 1}, "more"),
    ],
)
async def test_what_is_wrong_is_named(service: Service, change: Any, field: str) -> None:
    answer = await service.post("/replays", {"campaignId": "c", **SPAN} | change)

    assert [one["field"] for one in described(answer, 422, "Invalid")["details"]] == [field]


async def test_a_time_is_written_as_in_an_event(service: Service) -> None:
    wrong = {"fromTimestamp": "1795168800", "toTimestamp": "2026-11-21"}
    answer = await service.post("/replays", {"campaignId": "c", **wrong})
    spaced = {"fromTimestamp": " 2026-11-20T00:00:00Z\n", "toTimestamp": " 9999-12-31T23:59:59Z "}
    accepted = await service.post("/replays", {"campaignId": "c", **spaced})

    assert described(answer, 422, "Invalid")["details"] == [
        {"field": "fromTimestamp", "message": "is not ISO 8601, such as 2026-11-23T19:00:00Z"},
        {"field": "toTimestamp", "message": "needs a date, a time, and an offset or Z"},
    ]
    await ended(service, described(accepted, 202, "ReplayAccepted")["replayJobId"])
