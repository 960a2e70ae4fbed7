"""Clients that nobody here wrote, unchanged: socket.io-client and ws from npm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.node import NodeClient
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

CAMPAIGN = "campaign_123"
POLLING: dict[str, Any] = {"transports": ["polling"]}
WEBSOCKET: dict[str, Any] = {"transports": ["websocket"]}
#: Polling first, and then an upgrade: what a client does that is told nothing.
DEFAULT: dict[str, Any] = {}


def dashboard(service: Service, options: dict[str, Any]) -> NodeClient:
    return NodeClient("dashboard.js", service.url, json.dumps(options))


async def live(stack: Stack, **settings: object) -> Service:
    await stack.shard()
    await stack.broadcast()
    return await stack.service(**settings)


async def send(stack: Stack, *kinds: str, **data: object) -> None:
    events = [stack.event(kind, **{"campaignId": CAMPAIGN, **data}) for kind in kinds]
    await stack.owners["shard-0"].submit(*events)


@pytest.mark.parametrize("options", [DEFAULT, WEBSOCKET, POLLING], ids=["default", "ws", "poll"])
async def test_a_socket_io_dashboard_hears_everything(
    stack: Stack, options: dict[str, Any]
) -> None:
    service = await live(stack)
    assert stack.voice is not None
    async with dashboard(service, options) as client:
        told = await client.until("subscribed")
        assert told["data"]["snapshot"]["opens"] == 0
        await send(stack, "EMAIL_OPEN", leadId="ada")
        told = await client.until("campaign_progress_detailed")
        assert told["data"]["counters"]["opens"] == 1
        assert told["data"]["event"]["leadId"] == "ada"
        await stack.voice.broadcaster.set_batched(True)
        await send(stack, "EMAIL_OPEN", "EMAIL_SENT", leadId="bob")
        told = await client.until("progress_batch", lambda e: e["eventType"] == "EMAIL_SENT")
        assert told["data"]["counters"]["sent"] == 1
        await stack.voice.broadcaster.set_batched(False)
        await client.say("unsubscribe_campaign", {"campaignId": CAMPAIGN})
        await client.say("subscribe_campaign", {"campaignId": CAMPAIGN, "detailed": False})
        told = await client.until("subscribed")
        assert told["data"]["snapshot"]["opens"] == 2
        await send(stack, "EMAIL_OPEN")
        told = await client.until("campaign_progress")
        assert told["data"]["counters"]["opens"] == 3


@pytest.mark.parametrize("options", [DEFAULT, POLLING], ids=["default", "poll"])
async def test_replicas_that_share_a_port_are_one_to_a_client_that_polls(
    stack: Stack, options: dict[str, Any]
) -> None:
    """Each of its connections may reach another of them; the session is in one."""
    service = await live(stack)
    await stack.service(port=service.port)
    reached: set[int] = set()
    sessions = 0
    while sessions < 6 or reached != {0, 1}:
        sessions += 1
        assert sessions <= 60, "both replicas have sessions"
        async with dashboard(service, options) as client:
            told = await client.until("subscribed")
            await send(stack, "EMAIL_OPEN")
            opens = told["data"]["snapshot"]["opens"] + 1
            for _ in range(3):
                await client.until(
                    "campaign_progress_detailed", lambda d, n=opens: d["counters"]["opens"] == n
                )
                await send(stack, "EMAIL_OPEN")
                opens += 1
            if options is DEFAULT:
                names = [told["event"] for told in client.heard]
                assert "disconnect" not in names
            reached |= {
                index for index, each in enumerate(stack.services) if each.ports.hub.connections
            }


async def test_a_dashboard_comes_back_with_what_it_missed(stack: Stack) -> None:
    """To another replica, after its own has gone."""
    service = await live(stack)
    other = await stack.service()
    async with dashboard(service, WEBSOCKET) as client:
        told = await client.until("subscribed")
        cursor = told["data"]["cursor"]
    await send(stack, "EMAIL_OPEN", "EMAIL_OPEN")
    async with dashboard(other, WEBSOCKET) as client:
        await client.until("subscribed")
        await client.say("subscribe_campaign", {"campaignId": CAMPAIGN, "cursor": cursor})
        told = await client.until("subscribed")
        assert told["data"]["recovered"] is True
        for _ in range(2):
            await client.until("campaign_progress_detailed")


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["ws", "poll"])
async def test_a_dashboard_reconnects_by_itself_when_its_replica_is_replaced(
    stack: Stack, options: dict[str, Any]
) -> None:
    service = await live(stack)
    async with dashboard(service, options) as client:
        await client.until("subscribed")
        await stack.service(port=service.port)
        await service.listener.stop()
        told = await client.until("disconnect")
        assert told["data"]["reason"] != "io server disconnect", "after which it would stay away"
        await client.until("connect")


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        (None, "an API key is needed"),
        ({"token": "unknown"}, "the API key is not known"),
        ({"token": "sender"}, "does not have the scope"),
        ({"token": 5}, "an API key is needed"),
    ],
)
async def test_without_a_key_that_reads_it_is_refused(
    stack: Stack, auth: Any, message: str
) -> None:
    service = await live(stack, api_keys="reader:read, sender:ingest")
    async with dashboard(service, {**WEBSOCKET, "auth": auth} if auth else WEBSOCKET) as client:
        told = await client.until("connect_error")
        assert message in told["data"]["message"]


async def test_a_key_opens_it(stack: Stack) -> None:
    service = await live(stack, api_keys="reader:read")
    async with dashboard(service, {**DEFAULT, "auth": {"token": "reader"}}) as client:
        await client.until("subscribed")


async def test_mistakes_are_answered(stack: Stack) -> None:
    service = await live(stack)
    async with dashboard(service, WEBSOCKET) as client:
        for asked, code in (
            (["subscribe_campaign", {}], "bad_request"),
            (["subscribe_campaign", "c1"], "bad_request"),
            (["unsubscribe_campaign", None], "bad_request"),
            (["dance", {}], "unknown_action"),
        ):
            await client.say(*asked)
            assert (await client.until("error"))["data"]["code"] == code


async def test_a_client_of_ws_from_npm(stack: Stack) -> None:
    service = await live(stack)
    async with NodeClient("socket.js", service.url.replace("http", "ws", 1) + "/ws") as client:
        await client.say({"action": "subscribe_campaign", "campaignId": CAMPAIGN})
        await client.until("subscribed")
        await send(stack, "EMAIL_OPEN")
        told = await client.until("campaign_progress")
        assert told["data"]["counters"]["opens"] == 1
        await client.say(
            {"action": "subscribe_campaign", "campaignId": CAMPAIGN, "cursor": told["cursor"]}
        )
        assert (await client.until("subscribed"))["data"]["recovered"] is True
        await service.listener.stop()
        assert (await client.until("closed"))["data"]["code"] == 1012
