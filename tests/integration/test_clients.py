"""The Python clients against the real app: over HTTP, in threads, and from inside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from ray_tracking import AsyncTrackingClient, EventType, TrackingClient, Unreachable
from ray_tracking.api.attempts import Request
from ray_tracking.errors import AccessRefused
from ray_tracking.pipeline.rate import RatePolicy
from tests.support.inside import InsideClient
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

NOW = datetime.now(UTC)


def event(**more: Any) -> dict[str, Any]:
    """The fields of an open, of a campaign of its own."""
    return {
        "campaign_id": f"campaign-{uuid4()}",
        "lead_id": "ada",
        "email_id": "mail-1",
        "timestamp": NOW,
    } | more


class InThread:
    """
    A :class:`TrackingClient`, called as if it were asynchronous.

    Args:
        client: Whose methods are called in threads.
    """

    def __init__(self, client: TrackingClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(*args: Any, **more: Any) -> Any:
            return await asyncio.to_thread(method, *args, **more)

        return call


def client_of(way: str, service: Service, **more: Any) -> Any:
    if way == "inside":
        return InsideClient(service, **more)
    kind = AsyncTrackingClient if way == "async" else TrackingClient
    client = kind(service.url, retry_for_s=more.pop("retry_for_s", 5.0), **more)
    return client if way == "async" else InThread(client)


@pytest_asyncio.fixture(params=["async", "threads", "inside"], loop_scope="session")
async def client(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Any]:
    """Of each kind."""
    client = client_of(request.param, service)
    yield client
    await client.close()


async def test_an_event_becomes_a_row_once(client: Any, shared: Stack) -> None:
    data = event(event_id="mine", device_info={"type": "phone"}, custom_data={"my_key": 1})
    result = await client.process_event(data, EventType.EMAIL_OPEN, metadata={"priority": "high"})
    again = await client.process_event(data, EventType.EMAIL_OPEN)

    assert (result.success, result.event_id, result.duplicate) == (True, "mine", False)
    assert (result.result.lane, result.mode in ("REALTIME", "BATCH", "HYBRID")) == ("high", True)
    assert (again.success, again.event_id, again.duplicate) == (True, "mine", True)
    query = "SELECT * FROM events WHERE campaign_id = $1"
    (row,) = await eventually(lambda: shared.sql(query, data["campaign_id"]))
    assert row["occurred_at"] == NOW
    assert (json.loads(row["custom"]), row["client_event_id"]) == ({"my_key": 1}, "mine")


async def test_an_event_without_an_id_is_known_by_what_it_says(client: Any) -> None:
    """So it is safe to ask again for it too."""
    data = event()
    first = await client.process_event(data, "EMAIL_OPEN")
    again = await client.process_event(data, "EMAIL_OPEN")
    assert (again.duplicate, again.event_id) == (True, first.event_id)


async def test_a_refusal_is_a_result(client: Any) -> None:
    result = await client.process_event(event(lead_name="Ada"), "LINK_CLICK")
    assert (result.success, result.error) == (False, "Event validation failed")
    assert {error.field for error in result.details} == {"linkUrl", "lead_name"}
    assert result.retry_after is None


async def test_each_item_of_a_batch_has_its_fate(client: Any, shared: Stack) -> None:
    campaign = f"campaign-{uuid4()}"
    items: list[Any] = [
        {"data": event(campaign_id=campaign, lead_id=str(n)), "event_type": EventType.EMAIL_SENT}
        for n in range(3)
    ]
    items += [items[0], {"eventData": event(), "eventType": "NONSENSE"}, 5]
    result = await client.process_event_batch(items)
    assert (result.processed, result.duplicates, result.invalid) == (3, 1, 2)
    assert [error.index for error in result.errors] == [4, 5]
    assert result.success
    query = "SELECT count(*) AS n FROM events WHERE campaign_id = $1 HAVING count(*) = 3"
    assert await eventually(lambda: shared.sql(query, campaign))


async def test_a_replay_begins(client: Any, shared: Stack) -> None:
    data = event()
    await client.process_event(data, "EMAIL_OPEN")
    await shared.scribes[0].writer.drain()
    replay = await client.replay_events(
        data["campaign_id"], NOW - timedelta(days=1), NOW + timedelta(seconds=1),
        event_types=[EventType.EMAIL_OPEN], batch_size=10,
    )  # fmt: skip
    assert (replay.success, replay.estimated_events) == (True, 1)
    refused = await client.replay_events("c", NOW, NOW)
    assert [error.field for error in refused.details] == ["toTimestamp"]


async def test_health_is_told(client: Any) -> None:
    health = await client.perform_health_check()
    worse = [name for name, its in health.components.items() if its["status"] != "healthy"]
    assert (health.overall, worse) == ("degraded", ["websocket"])  # there is no broadcaster here
    assert (await client.check_memory_health()).status == "healthy"
    assert (await client.get_processing_stats()).running is True


@pytest.mark.parametrize("path", ["/events", "/events/batch", "/dead-letters?limit=1", "/nowhere"])
async def test_inside_and_http_answer_the_same(service: Service, path: str) -> None:
    """One implementation: the same status and the same words, whatever way a request comes."""
    client = InsideClient(service)
    method = "POST" if path.startswith("/events") else "GET"
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"nonsense", b'{"eventType": "EMAIL_OPEN", "eventData": {}}'):
        inside = await client.request(Request(method, path, body, headers))
        over_http = await service.call(method, path, body=body, headers=headers)
        assert (inside.status, inside.body) == (over_http.status, over_http.body)
    await client.close()


async def test_who_comes_from_inside_needs_no_key(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service(api_keys="reader:read, sender:ingest")
    inside = InsideClient(service)
    assert (await inside.process_event(event(), "EMAIL_OPEN")).success
    await inside.close()
    async with AsyncTrackingClient(service.url, "sender") as sender:
        assert (await sender.process_event(event(), "EMAIL_OPEN")).success
        with pytest.raises(AccessRefused, match="scope 'read'"):
            await sender.perform_health_check()
    with TrackingClient(service.url, "reader") as reader:
        refused = await asyncio.to_thread(reader.process_event, event(), "EMAIL_OPEN")
    assert (refused.success, "scope 'ingest'" in refused.error) == (False, True)


@pytest.mark.parametrize("way", ["async", "threads", "inside"])
async def test_what_is_over_the_rate_passes_when_the_service_said(stack: Stack, way: str) -> None:
    """A second later: the burst is one event a second."""
    await stack.shard(rate=RatePolicy(burst=1))
    service = await stack.service()
    client = client_of(way, service)
    campaign = f"campaign-{uuid4()}"
    results = [
        await client.process_event(event(campaign_id=campaign, lead_id=str(n)), "EMAIL_OPEN")
        for n in range(2)
    ]
    assert [result.success for result in results] == [True, True]
    await client.close()
    impatient = client_of(way, service, retry_for_s=0.0)
    for n in range(2, 4):
        result = await impatient.process_event(
            event(campaign_id=campaign, lead_id=str(n)), "EMAIL_OPEN"
        )
    assert (result.success, result.error) == (False, "Rate limit exceeded")
    assert result.retry_after >= 1
    await impatient.close()


@pytest.mark.parametrize("way", ["async", "threads"])
async def test_a_service_that_comes_back_is_found_again(stack: Stack, way: str) -> None:
    """The event goes out while nobody listens, and is one row in the end."""
    await stack.shard()
    await stack.writer()
    gone = await stack.service()
    await gone.listener.stop()
    client = client_of(way, gone)
    sending = asyncio.create_task(client.process_event(event(event_id="patient"), "EMAIL_OPEN"))
    await asyncio.sleep(0.2)  # it has tried in vain
    assert not sending.done()
    await stack.service(port=gone.port)
    assert (await sending).success
    assert await eventually(lambda: stack.has_rows(1))
    await client.close()


@pytest.mark.parametrize("way", ["async", "threads"])
async def test_where_nobody_listens_is_an_error(stack: Stack, way: str) -> None:
    gone = await stack.service()
    await gone.listener.stop()
    client = client_of(way, gone, retry_for_s=0.3)
    with pytest.raises(Unreachable, match=f"127.0.0.1:{gone.port} does not answer"):
        await client.process_event(event(), "EMAIL_OPEN")
    await client.close()


async def test_a_lost_answer_makes_no_second_event(stack: Stack) -> None:
    """The shard has the event, and the client does not know: it asks again."""
    owner = await stack.shard()
    service = await stack.service()
    client = InsideClient(service)
    data = event(event_id="once")
    stack.answering.clear()
    sending = asyncio.create_task(client.process_event(data, "EMAIL_OPEN"))
    await eventually(lambda: service.ports.gatherer.room.events)
    await client.reconnect()
    stack.answering.set()
    result = await sending
    assert (result.success, result.event_id) == (True, "once")
    assert len(await stack.logged_ids()) == 1
    assert owner.died is None
    await client.close()
