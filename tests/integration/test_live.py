"""From the log to subscribers of /ws, on real servers."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from ray_tracking.pipeline import outbox
from tests.support.live import LiveClient
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def live(stack: Stack, **settings: object) -> Service:
    """Shard, broadcaster and HTTP app."""
    await stack.shard()
    await stack.broadcast()
    return await stack.service(**settings)


async def send(stack: Stack, *kinds: str, **data: object) -> None:
    """Append events, in one call."""
    await stack.owners["shard-0"].submit(*[stack.event(kind, **data) for kind in kinds])


async def test_an_event_reaches_a_subscriber(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        told = await client.subscribe("c1")
        assert told["recovered"] is False
        assert told["snapshot"]["opens"] == 0
        await send(stack, "EMAIL_OPEN", timestamp="2026-11-01T09:00:00Z")
        progress = await client.until("campaign_progress")
    counters, version = progress.pop("counters"), progress.pop("version")
    assert counters == {
        "sent": 0, "delivered": 0, "opens": 1, "uniqueOpens": 0, "clicks": 0,
        "uniqueClicks": 0, "replies": 0, "uniqueReplies": 0,
        "bounces": {"hard": 0, "soft": 0, "complaint": 0, "suppression": 0},
    }  # fmt: skip
    assert version > 0
    assert progress == {
        "campaignId": "c1",
        "lastEvent": {"eventType": "EMAIL_OPEN", "timestamp": "2026-11-01T09:00:00.000Z"},
    }


async def test_who_asks_for_details_sees_each_event(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        await client.subscribe("c1", detailed=True)
        await send(
            stack,
            "LINK_CLICK",
            leadId="ada",
            emailId="m1",
            deviceInfo={"type": "mobile"},
            timestamp="2026-11-01T09:00:00Z",
        )
        told = await client.until("campaign_progress_detailed")
    assert told["event"] == {
        "eventType": "LINK_CLICK",
        "leadId": "ada",
        "emailId": "m1",
        "linkUrl": "https://example.com/offer",
        "timestamp": "2026-11-01T09:00:00.000Z",
        "deviceInfo": {"type": "mobile"},
        "locationInfo": None,
    }
    assert told["counters"]["clicks"] == 1


async def test_many_events_at_once_are_one_batch(stack: Stack) -> None:
    """In any mode for those who watch in detail; in BATCH for everybody."""
    service = await live(stack)
    assert stack.voice is not None
    async with LiveClient(service.url) as plain, LiveClient(service.url) as detailed:
        await plain.subscribe("c1")
        await detailed.subscribe("c1", detailed=True)
        await send(stack, *["EMAIL_OPEN"] * 250)
        told = await detailed.until("progress_batch")
        assert (told["batchSize"], len(told["events"]), told["dropped"]) == (100, 100, 150)
        assert {event["counters"]["opens"] for event in told["events"]} == {250}
        assert told["events"][0].keys() == {
            "campaignId", "eventType", "leadId", "emailId", "timestamp", "counters",
            "lastEvent", "version",
        }  # fmt: skip
        assert (await plain.until("campaign_progress"))["counters"]["opens"] == 250
        await stack.voice.broadcaster.set_batched(True)
        await send(stack, "EMAIL_SENT")
        for client in (plain, detailed):
            told = await client.until("progress_batch")
            assert [event["eventType"] for event in told["events"]] == ["EMAIL_SENT"]
            assert told["dropped"] == 0
        await send(stack, "EMAIL_BOUNCE")
        told = await detailed.until("campaign_progress_detailed")
        assert told["event"]["eventType"] == "EMAIL_BOUNCE"
        assert (await plain.until("campaign_progress"))["counters"]["bounces"]["hard"] == 1


async def test_uniques_follow_the_rows(stack: Stack) -> None:
    service = await live(stack)
    await stack.writer()
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        await send(stack, "EMAIL_OPEN", "EMAIL_OPEN", leadId="ada")
        await send(stack, "EMAIL_OPEN", leadId="bob")
        progress = await client.until(
            "campaign_progress", lambda data: data["counters"]["uniqueOpens"] == 2
        )
        assert progress["counters"]["opens"] == 3
        assert "correction" not in progress


async def test_what_was_stored_before_is_in_the_snapshot(stack: Stack) -> None:
    await stack.shard()
    await stack.writer()
    await send(stack, "EMAIL_SENT", "EMAIL_SENT", "EMAIL_BOUNCE")
    await eventually(lambda: stack.has_rows(3))
    await stack.broadcast()
    service = await stack.service()
    async with LiveClient(service.url) as client:
        snapshot = (await client.subscribe("c1"))["snapshot"]

        async def counted() -> Any:
            stats = (await service.get("/campaigns/c1/stats")).json
            return stats if stats["sent"] and stats["bounces"]["hard"] else None

        stats = await eventually(counted)
    assert snapshot.pop("asOf") <= stats.pop("asOf")
    assert snapshot == stats
    assert stats["sent"] == 2
    assert stats["bounces"]["hard"] == 1


async def test_a_dead_letter_takes_its_event_out_again_and_says_so(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        await stack.sql("ALTER TABLE events ADD CONSTRAINT nobody CHECK (lead_id <> 'nobody')")
        await stack.owners["shard-0"].submit(
            stack.event("EMAIL_OPEN", leadId="nobody"), stack.event("EMAIL_OPEN")
        )
        assert (await client.until("campaign_progress"))["counters"]["opens"] == 2
        await stack.writer()
        told = await client.until("campaign_progress", lambda data: "correction" in data)
        assert told["correction"] is True
        assert told["counters"]["opens"] == 1
    assert await stack.has_rows(1)


async def test_who_comes_back_gets_what_was_missed_from_any_replica(stack: Stack) -> None:
    service = await live(stack)
    other = await stack.service()
    async with LiveClient(service.url) as client:
        await client.subscribe("c1", detailed=True)
        await send(stack, "EMAIL_SENT", leadId="first")
        await client.until("campaign_progress_detailed")
        cursor = client.cursor
    for lead in ("second", "third"):
        await send(stack, "EMAIL_SENT", leadId=lead)
    async with LiveClient(other.url) as client:
        told = await client.subscribe("c1", detailed=True, cursor=cursor)
        assert told["recovered"] is True
        # As the client left it: what follows goes on from there.
        assert told["snapshot"]["sent"] == 1
        missed = [await client.until("campaign_progress_detailed") for _ in range(2)]
        assert [each["event"]["leadId"] for each in missed] == ["second", "third"]
        assert [each["counters"]["sent"] for each in missed] == [2, 3]
        await send(stack, "EMAIL_SENT", leadId="fourth")
        told = await client.until("campaign_progress_detailed")
        assert told["event"]["leadId"] == "fourth"


async def test_a_cursor_from_before_the_campaign_was_watched_is_not_recovered(
    stack: Stack,
) -> None:
    """There were no frames of it then; nobody may say that nothing was missed."""
    service = await live(stack)
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        await send(stack, "EMAIL_SENT")
        await client.until("campaign_progress")
        await send(stack, "EMAIL_SENT", campaignId="c2")
        # Plain frames are no detailed ones either.
        for campaign_id, detailed in (("c2", False), ("c1", True)):
            told = await client.subscribe(campaign_id, cursor=client.cursor, detailed=detailed)
            assert told["recovered"] is False
            assert told["snapshot"]["sent"] == 1


@pytest.mark.parametrize("cursor", ["", "nonsense", "1-1", "9" * 50, "5-", "-5", "٣-٤"])
async def test_a_cursor_that_is_none_of_ours_is_not_recovered(stack: Stack, cursor: str) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        assert (await client.subscribe("c1", cursor=cursor))["recovered"] is False


async def test_another_broadcaster_goes_on_with_the_figures_and_says_what_it_is(
    stack: Stack,
) -> None:
    """The replica keeps its clients; they hear that something may have been missed."""
    service = await live(stack)
    await stack.writer()
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        await send(stack, "EMAIL_SENT")
        await client.until("campaign_progress")
        cursor = client.cursor
        await stack.silence()
        await send(stack, "EMAIL_SENT")
        async with LiveClient(service.url) as late:
            # What it has missed nobody knows yet; up to there nothing is missed.
            told = await late.subscribe("c1", cursor=cursor)
            assert (told["recovered"], told["snapshot"]["sent"]) == (True, 1)
        await stack.broadcast()
        told = await client.until("subscribed")
        assert told["recovered"] is False
        assert told["snapshot"]["sent"] == 2
        await send(stack, "EMAIL_SENT")
        assert (await client.until("campaign_progress"))["counters"]["sent"] == 3
        assert (await client.subscribe("c1", cursor=cursor))["recovered"] is False


async def test_live_goes_on_without_postgres(stack: Stack) -> None:
    await stack.shard()
    await stack.writer()
    await send(stack, "EMAIL_SENT")
    await eventually(lambda: stack.has_rows(1))
    proxy, url = await stack.postgres_proxy()
    await stack.broadcast(database_url=url)
    service = await stack.service()
    async with LiveClient(service.url) as client:
        assert (await client.subscribe("c1"))["snapshot"]["sent"] == 1
        proxy.refuse()
        await send(stack, "EMAIL_SENT")
        assert (await client.until("campaign_progress"))["counters"]["sent"] == 2
        # Also for a campaign that nobody watched while Postgres was there.
        assert (await client.subscribe("c9"))["snapshot"]["sent"] == 0


async def test_without_postgres_at_the_start_no_figure_is_shown_until_it_is_known(
    stack: Stack,
) -> None:
    await stack.shard()
    await stack.writer()
    await send(stack, "EMAIL_SENT")
    await eventually(lambda: stack.has_rows(1))
    proxy, url = await stack.postgres_proxy()
    proxy.refuse()
    await stack.broadcast(database_url=url)
    service = await stack.service()
    async with LiveClient(service.url) as client:
        assert (await client.subscribe("c1"))["snapshot"] is None
        await send(stack, "EMAIL_SENT")
        await eventually(lambda: stack.has_rows(2))
        await proxy.accept()
        told = await client.until("campaign_progress")
        assert (told["counters"]["sent"], told["correction"]) == (2, True)


async def test_mistakes_are_answered_and_the_connection_stays(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        for text, code in (
            ("{", "bad_json"),
            ("[]", "bad_request"),
            ("{}", "unknown_action"),
            ('{"action": "subscribe_campaign"}', "bad_request"),
            ('{"action": "subscribe_campaign", "campaignId": ""}', "bad_request"),
            ('{"action": "subscribe_campaign", "campaignId": "a\\u0000b"}', "bad_request"),
            ('{"action": "subscribe_campaign", "campaignId": "c", "cursor": 1}', "bad_request"),
            ('{"action": "subscribe_campaign", "campaignId": "c", "detailed": 1}', "bad_request"),
            ('{"action": "unsubscribe_campaign"}', "bad_request"),
        ):
            await client.socket.send(text)
            told = await client.hear()
            assert (told["event"], told["data"]["code"]) == ("error", code)
            assert told["data"]["message"]
        await client.say("ping")
        assert (await client.hear())["event"] == "pong"


async def test_one_connection_watches_so_many_campaigns_and_no_more(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        for number in range(100):
            await client.subscribe(f"c{number}")
        await client.say("subscribe_campaign", campaignId="one-more")
        assert (await client.hear())["data"]["code"] == "too_many_subscriptions"
        await client.subscribe("c5")  # again is no other
        await client.say("unsubscribe_campaign", campaignId="c5")
        await client.subscribe("one-more")


async def test_who_has_unsubscribed_hears_no_more_of_it(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        await client.subscribe("c1")
        await client.subscribe("c2")
        await client.say("unsubscribe_campaign", campaignId="c1")
        await client.say("ping")
        await client.until("pong", lambda data: True)
        await send(stack, "EMAIL_SENT", campaignId="c1")
        await send(stack, "EMAIL_SENT", campaignId="c2")
        assert (await client.hear())["data"]["campaignId"] == "c2"


async def test_a_message_that_is_too_large_ends_the_connection(stack: Stack) -> None:
    service = await live(stack)
    async with LiveClient(service.url) as client:
        await client.socket.send("x" * 65_537)
        with pytest.raises(ConnectionClosed):
            await client.hear()
        assert client.socket.close_code == 1009


KEYS = {"api_keys": "reader:read, sender:ingest"}


async def test_a_key_opens_the_connection(stack: Stack) -> None:
    service = await live(stack, **KEYS)
    async with LiveClient(service.url) as client:
        await client.say("authenticate", token="reader")
        assert (await client.subscribe("c1"))["recovered"] is False
    async with LiveClient(service.url, {"Authorization": "Bearer reader"}) as client:
        assert (await client.subscribe("c1"))["recovered"] is False


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"action": "authenticate", "token": "unknown"}, "unauthenticated"),
        ({"action": "authenticate", "token": "sender"}, "forbidden"),
        ({"action": "authenticate"}, "unauthenticated"),
        ({"action": "subscribe_campaign", "campaignId": "c1"}, "unauthenticated"),
    ],
)
async def test_without_a_key_that_reads_it_is_closed(
    stack: Stack, first: dict[str, str], code: str
) -> None:
    service = await live(stack, **KEYS)
    async with LiveClient(service.url) as client:
        await client.socket.send(json.dumps(first))
        assert (await client.hear())["data"]["code"] == code
        with pytest.raises(ConnectionClosed):
            await client.hear()
        assert client.socket.close_code == 4401


async def test_what_is_said_of_the_system_reaches_who_asked_also_later(stack: Stack) -> None:
    service = await live(stack)
    assert stack.voice is not None
    async with LiveClient(service.url) as early:
        await early.say("subscribe_system")
        await early.say("ping")
        await early.until("pong", lambda data: True)
        await stack.voice.broadcaster.tell("health_check", {"overall": "healthy"})
        assert await early.until("health_check") == {"overall": "healthy"}
        async with LiveClient(service.url) as late:
            await late.say("subscribe_system")
            assert await late.until("health_check") == {"overall": "healthy"}
        for name in ("metrics_collected", "health_check"):
            await stack.voice.broadcaster.tell(name, {"overall": "healthy"})
            await early.until(name)
        async with LiveClient(service.url) as late:
            await late.say("subscribe_system")
            assert [(await late.hear())["event"] for _ in range(2)] == [
                "metrics_collected", "health_check",
            ]  # fmt: skip


async def test_a_stopped_service_closes_its_clients_with_1012(stack: Stack) -> None:
    service = await live(stack)
    clients = [LiveClient(service.url) for _ in range(5)]
    for client in clients:
        await client.__aenter__()
    await service.listener.stop()
    for client in clients:
        with pytest.raises(ConnectionClosed):
            await client.hear()
        assert client.socket.close_code == 1012


async def test_there_is_no_websocket_elsewhere(stack: Stack) -> None:
    service = await live(stack)
    client = LiveClient(service.url + "/nowhere")
    with pytest.raises(Exception, match="403"):
        await client.__aenter__()
    await asyncio.sleep(0)


async def test_a_client_that_stops_reading_costs_little_and_slows_nobody(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is conflated, then closed with 4408; the other client hears all of it."""
    monkeypatch.setattr(outbox, "STALLED_AFTER_MS", 500)
    service = await live(stack)
    hub = service.ports.hub
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    lazy.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(lazy, ("127.0.0.1", service.port))
    client = await connect(
        service.url.replace("http", "ws", 1) + "/ws", sock=lazy, compression=None, max_queue=1
    )
    await client.send('{"action": "subscribe_campaign", "campaignId": "c1", "detailed": true}')
    assert "subscribed" in str(await client.recv())
    most_bytes = 0
    async with LiveClient(service.url) as eager:
        await eager.subscribe("c1")
        for number in range(1, 61):
            await send(stack, *["EMAIL_OPEN"] * 100, leadId="x" * 100)
            await eager.until("campaign_progress", lambda d, n=number: opens(d) == 100 * n)
            waiting = [each.outbox.size_bytes for each in hub._connections]
            most_bytes = max(most_bytes, *waiting)
        await eventually(lambda: hub.connections == 1)
        await send(stack, "EMAIL_OPEN")
        await eager.until("campaign_progress", lambda d: opens(d) == 6001)
    assert 0 < most_bytes <= outbox.MAX_OUTBOX_BYTES
    client.transport.abort()


def opens(data: dict[str, Any]) -> int:
    number: int = data["counters"]["opens"]
    return number
