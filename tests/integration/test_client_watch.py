"""A campaign as an async iterator, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ray_tracking.client import AccessRefused, AsyncTrackingClient, Update, WatchRefused
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def live(stack: Stack, **settings: object) -> Service:
    await stack.shard()
    await stack.broadcast()
    return await stack.service(**settings)


async def send(stack: Stack) -> None:
    await stack.owners["shard-0"].submit(stack.event("EMAIL_SENT"))


async def following(updates: AsyncIterator[Update]) -> Update:
    async with asyncio.timeout(10):
        return await anext(updates)


async def test_updates_come_in_order_from_the_figures_as_they_are(stack: Stack) -> None:
    service = await live(stack)
    updates = AsyncTrackingClient(service.url).watch("c1", detailed=True)
    first = await following(updates)
    assert (first.event, first.data["snapshot"]["sent"]) == ("subscribed", 0)
    for number in (1, 2):
        await send(stack)
        update = await following(updates)
        assert update.event == "campaign_progress_detailed"
        assert update.data["counters"]["sent"] == number
    await updates.aclose()


async def test_a_lost_connection_is_opened_again_where_it_was(stack: Stack) -> None:
    service = await live(stack)
    updates = AsyncTrackingClient(service.url).watch("c1")
    await following(updates)
    await send(stack)
    await following(updates)
    await stack.service(port=service.port)
    await service.listener.stop()
    await send(stack)
    update = await following(updates)
    assert (update.event, update.data["recovered"]) == ("subscribed", True)
    assert update.data["snapshot"]["sent"] == 1
    assert (await following(updates)).data["counters"]["sent"] == 2
    await updates.aclose()


async def test_it_can_go_on_behind_a_cursor(stack: Stack) -> None:
    service = await live(stack)
    client = AsyncTrackingClient(service.url)
    updates = client.watch("c1")
    cursor = (await following(updates)).cursor
    await updates.aclose()
    await send(stack)
    updates = client.watch("c1", cursor=cursor)
    assert (await following(updates)).data["recovered"] is True
    assert (await following(updates)).data["counters"]["sent"] == 1
    await updates.aclose()


@pytest.mark.parametrize("api_key", [None, "unknown", "sender"])
async def test_a_key_that_does_not_read_is_an_error(stack: Stack, api_key: str | None) -> None:
    service = await live(stack, api_keys="reader:read, sender:ingest")
    with pytest.raises(AccessRefused):
        await following(AsyncTrackingClient(service.url, api_key).watch("c1"))
    updates = AsyncTrackingClient(service.url, "reader").watch("c1")
    assert (await following(updates)).event == "subscribed"
    await updates.aclose()


async def test_what_can_be_no_campaign_is_an_error(stack: Stack) -> None:
    service = await live(stack)
    with pytest.raises(WatchRefused, match="campaignId"):
        await following(AsyncTrackingClient(service.url).watch("x" * 129))


async def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="http"):
        AsyncTrackingClient("localhost:8000")
