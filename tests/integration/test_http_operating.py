"""Stats, health and metrics of real parts: each figure follows what really happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_tracking.pipeline.health import overall_health
from ray_tracking.pipeline.rate import RatePolicy
from tests.support.events import item
from tests.support.live import LiveClient
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def stats(service: Service) -> dict[str, Any]:
    answer = await service.get("/metrics/tracking")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


async def component(service: Service, name: str) -> dict[str, Any]:
    answer = await service.get(f"/health/tracking/{name}")
    found: dict[str, Any] = answer.json
    assert answer.status == (503 if found["status"] == "unhealthy" else 200)
    return found


async def test_the_counts_follow_what_is_sent(stack: Stack) -> None:
    await stack.shard(rate=RatePolicy(max_events=3, window_ms=60_000))
    await stack.writer()
    service = await stack.service()
    one = item("EMAIL_OPEN", eventId="the same", campaignId="c1")
    for body, status in ((one, 202), (one, 200), ({"eventType": "EMAIL_OPEN"}, 422)):
        assert (await service.post("/events", body)).status == status
    for number in range(3):
        more = item("EMAIL_OPEN", eventId=str(number), campaignId="c1")
        assert (await service.post("/events", more)).status == (202 if number < 2 else 429)

    async def stored() -> bool:
        return bool((await stats(service))["logLag"] == 0)

    await eventually(stored)
    found = await stats(service)
    counts = {
        "eventsProcessed": 3, "duplicatesDetected": 1, "validationErrors": 1, "rateLimited": 1,
        "backpressureEvents": 0, "processingErrors": 0, "deadLetters": 0, "running": True,
    }  # fmt: skip
    assert {name: found[name] for name in counts} == counts
    assert found["batchesProcessed"] >= 1
    assert 0 < found["averageProcessingTime"] < 10_000
    assert found["memoryUsage"]["perActor"].keys() > {"shard-0", "writer-0", "supervisor"}
    assert set(found["redisStatus"].values()) == {"connected", "disconnected"}  # no broadcaster


async def test_hits_are_part_of_the_mean(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service()
    links = await service.post(
        "/tracking-links", {"campaignId": "c1", "leadId": "ada", "emailId": "m1", "links": []}
    )
    assert (await service.get("/pixel/" + links.json["pixelUrl"].rpartition("/")[2])).status == 200
    assert (await stats(service))["averageProcessingTime"] > 0


async def test_a_component_is_found_by_its_name(shared: Stack, service: Service) -> None:
    whole = (await service.get("/health/tracking")).json
    assert whole["components"].keys() >= {
        "redis", "database", "websocket", "queues", "memory", "performance", "circuitBreakers",
    }  # fmt: skip
    for name, its in whole["components"].items():
        found = await component(service, name)
        assert (found["component"], found["status"]) == (name, its["status"])
        assert found["since"] <= found["timestamp"]
    missing = await service.get("/health/tracking/nothing")
    assert missing.status == 404
    assert "redis" in missing.json["error"]


async def test_postgres_away_is_said_with_what_to_do(stack: Stack) -> None:
    """Events are taken, and the breaker before Postgres is open."""
    proxy, url = await stack.postgres_proxy()
    await stack.shard()
    await stack.writer(database_url=url)
    service = await stack.service()
    assert (await component(service, "writers"))["status"] == "healthy"
    proxy.refuse()
    proxy.cut()
    assert (await service.post("/events", item("EMAIL_OPEN"))).status == 202

    async def degraded() -> bool:
        return (await component(service, "circuitBreakers"))["status"] == "degraded"

    await eventually(degraded)
    breaker = await component(service, "circuitBreakers")
    assert (breaker["database"]["state"], breaker["parts"]) == ("open", ["writer-0"])
    assert (await service.get("/health/tracking/circuitBreakers?strict=1")).status == 503
    assert (await stats(service))["circuitBreakers"]["database"]["failures"] > 0
    assert (await stats(service))["logLag"] == 1


async def test_live_clients_are_counted(stack: Stack) -> None:
    await stack.shard()
    await stack.broadcast()
    service = await stack.service()
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        assert (await component(service, "websocket"))["connectedClients"] == 1
        assert (await stats(service))["liveConnections"] == 1


async def test_a_full_spool_of_a_dead_log_is_shown_in_all_three(
    stack: Stack, tmp_path: Path
) -> None:
    proxy, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    service = await stack.service(spool=tmp_path / "spool", redis_url=url)
    proxy.refuse()
    proxy.cut()

    async def spooled() -> bool:
        answer = await service.post("/events", item("EMAIL_OPEN"))
        assert answer.status == 202
        return bool((await stats(service))["redisStatus"]["stream"] == "disconnected")

    await eventually(spooled)
    found = await stats(service)
    assert found["spooled"] >= 1
    assert found["circuitBreakers"]["redis"]["state"] != "closed"
    assert (await component(service, "spool"))["events"] == found["spooled"]
    text = (await service.get("/metrics")).body.decode()
    assert f"ray_tracking_spooled_events {float(found['spooled'])}" in text
    await proxy.start()


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
async def test_a_trace_goes_from_the_request_to_the_row_and_is_no_part_of_the_event(
    stack: Stack, path: str
) -> None:
    await stack.shard()
    await stack.writer()
    service = await stack.service()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    click = item("LINK_CLICK", campaignId="c1", linkId="footer")
    for event, header in ((click, trace), (item(campaignId="c1"), trace), (item(), "no trace")):
        value = event if path == "/events" else {"events": [event]}
        answer = await service.post(path, value, headers={"traceparent": header})
        assert answer.status in (200, 202)
    await eventually(lambda: stack.has_rows(3))
    found = await stack.sql(
        "SELECT details->>'traceparent' AS trace, details->>'linkId' AS link FROM events"
    )
    assert sorted(map(tuple, found), key=str) == [(trace, "footer"), (trace, None), (None, None)]
    listed = (await service.get("/campaigns/c1/events")).json["items"]
    assert [one["eventData"] for one in listed if one["eventType"] == "LINK_CLICK"] == [
        click["eventData"]
    ]
    assert not any("traceparent" in one["eventData"] for one in listed)
    # The same again without a trace is the same event.
    again = click if path == "/events" else {"events": [click]}
    answer = (await service.post(path, again)).json
    assert answer.get("duplicate") or answer["duplicates"] == 1


async def test_while_the_supervisor_is_silent_a_component_says_so(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service()

    async def silent() -> dict[str, Any]:
        return overall_health(None, now_s=0)

    service.ports.health = silent
    found = await component(service, "writers")
    assert (found["status"], found["parts"]) == ("degraded", ["supervisor"])
    assert (await service.get("/health/tracking?strict=1")).status == 503
