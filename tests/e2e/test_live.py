"""Live updates of the whole service: parts are killed, and clients hear the truth about it."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import count
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from ray_tracking.client import AsyncTrackingClient
from tests.e2e.service import Service, eventually
from tests.support.live import LiveClient
from tests.support.node import NodeClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: Of a busy machine; `make bench BENCH=live` has the figures.
WITHIN_S = 30.0
_number = count()


async def send(service: Service, campaign_id: str, events: int = 1) -> None:
    """Acknowledged when this returns, though a replica may have to be asked twice."""
    body = {"events": [event(campaign_id) for _ in range(events)]}
    while True:
        try:
            answer = await asyncio.to_thread(service.call, "POST", "/events/batch", body)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        assert answer.status == 200
        assert answer.body["processed"] + answer.body["duplicates"] == events
        return


def event(campaign_id: str) -> dict[str, Any]:
    number = next(_number)
    data = {
        "eventId": f"live-{number}",
        "campaignId": campaign_id,
        "leadId": f"lead-{number}",
        "emailId": "mail",
        "timestamp": "2026-11-01T09:00:00Z",
    }
    return {"eventType": "EMAIL_OPEN", "data": data}


def shows(opens: int) -> Any:
    """Whether figures have so many opens."""
    return lambda data: data["counters"]["opens"] == opens


@pytest.fixture(autouse=True)
def quiet(service: Service) -> None:
    """Behind a busy test the mode is ``BATCH`` for some seconds, and frames have another form."""
    eventually(
        lambda: service.call("GET", "/metrics/tracking").body["processingMode"] == "REALTIME",
        WITHIN_S,
        "nothing is sent any more",
    )


async def test_what_is_acknowledged_is_shown_and_ends_as_sql_says(service: Service) -> None:
    async with LiveClient(service.url) as client:
        assert (await client.subscribe("live-shown"))["snapshot"]["opens"] == 0
        await send(service, "live-shown", 50)
        told = await client.until(
            "campaign_progress", lambda data: data["counters"]["uniqueOpens"] == 50, WITHIN_S
        )
    assert told["counters"]["opens"] == 50
    (row,) = await asyncio.to_thread(
        service.sql, "SELECT count(*) AS n FROM events WHERE campaign_id = 'live-shown'"
    )
    assert row["n"] == 50


async def test_a_client_of_a_killed_replica_misses_nothing(service: Service) -> None:
    """It comes back to the other one, or to the successor, with its cursor."""
    async with LiveClient(service.url) as other, LiveClient(service.url) as client:
        await other.subscribe("live-replica", detailed=True)
        await client.subscribe("live-replica", detailed=True)
        await send(service, "live-replica")
        await client.until("campaign_progress_detailed", shows(1), WITHIN_S)
        cursor = client.cursor
    for process in service.processes():
        if " ".join(process.cmdline()).startswith("ray::ServeReplica:tracking:Ingress"):
            os.kill(process.pid, signal.SIGKILL)
            break
    await send(service, "live-replica")
    await send(service, "live-replica")
    recovered = await _resumed(service, "live-replica", cursor)
    # What is read in one tick is shown with the same figures.
    assert recovered in ([2, 3], [3, 3])


async def _resumed(service: Service, campaign_id: str, cursor: str) -> list[int]:
    """The opens of each frame that a client gets that has come back."""
    while True:
        try:
            async with LiveClient(service.url) as client:
                told = await client.subscribe(campaign_id, detailed=True, cursor=cursor)
                assert told["recovered"] is True
                assert told["snapshot"]["opens"] == 1
                return [
                    (await client.until("campaign_progress_detailed", within_s=WITHIN_S))[
                        "counters"
                    ]["opens"]
                    for _ in range(2)
                ]
        except (OSError, WebSocketException):
            await asyncio.sleep(0.1)  # it met the one that dies


async def test_a_killed_broadcaster_is_said_and_figures_go_on(service: Service) -> None:
    async with LiveClient(service.url) as client:
        await client.subscribe("live-broadcaster")
        await send(service, "live-broadcaster", 3)
        await client.until("campaign_progress", shows(3), WITHIN_S)
        cursor = client.cursor
        os.kill(service.actor_pid("BroadcasterActor"), signal.SIGKILL)
        await send(service, "live-broadcaster", 2)
        told = await client.until("subscribed", within_s=WITHIN_S)
        assert told["recovered"] is False
        assert told["snapshot"]["opens"] == 5
        await send(service, "live-broadcaster")
        told = await client.until("campaign_progress", shows(6), WITHIN_S)
        assert "correction" not in told
        assert (await client.subscribe("live-broadcaster", cursor=cursor))["recovered"] is False


async def test_socket_io_reconnects_by_itself_when_its_replicas_are_killed(
    service: Service,
) -> None:
    """The unchanged client of npm, polling at first, with two replicas on one port."""
    async with NodeClient("dashboard.js", service.url) as client:
        await client.until("subscribed")
        await send(service, "campaign_123")
        told = await client.until("campaign_progress_detailed")
        opens = told["data"]["counters"]["opens"]
        for process in service.processes():
            if " ".join(process.cmdline()).startswith("ray::ServeReplica:tracking:Ingress"):
                os.kill(process.pid, signal.SIGKILL)
        await client.until("disconnect")
        await client.until("connect", within_s=WITHIN_S)
        await client.say("subscribe_campaign", {"campaignId": "campaign_123"})
        await client.until("subscribed")
        await send(service, "campaign_123")
        await client.until("campaign_progress_detailed", shows(opens + 1))


async def test_ws_of_npm_and_the_python_client_see_the_same(service: Service) -> None:
    url = service.url.replace("http", "ws", 1) + "/ws"
    updates = AsyncTrackingClient(service.url).watch("live-both")
    assert (await anext(updates)).event == "subscribed"
    async with NodeClient("socket.js", url) as client:
        await client.say({"action": "subscribe_campaign", "campaignId": "live-both"})
        await client.until("subscribed")
        await send(service, "live-both")
        told = await client.until("campaign_progress", shows(1))
        assert (await anext(updates)).data["counters"] == told["data"]["counters"]
    await updates.aclose()


async def test_the_system_tells_how_it_is(service: Service) -> None:
    """Health and metrics come at once to who asks, and every ten seconds."""
    async with LiveClient(service.url) as client:
        await client.say("subscribe_system")
        stats = await client.until("metrics_collected", within_s=WITHIN_S)
        assert stats["running"] is True
        assert stats["memoryUsage"]["perActor"].keys() >= {"shard-0", "writer-0", "broadcaster"}
    answer = await asyncio.to_thread(service.call, "GET", "/metrics/tracking")
    assert answer.body.keys() == stats.keys()
    assert answer.body["eventsProcessed"] > 0
    assert answer.body["liveConnections"] >= 0
