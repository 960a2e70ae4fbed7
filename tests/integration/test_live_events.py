"""A campaign as server-sent events, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Stream:
    """An open stream, read event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def next(self) -> tuple[str, Any]:
        """Name and data of the next event."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(8):
            while line := (await self.response.content.readline()).decode():
                if line == "\n" and "data" in fields:
                    self.last_id = fields["id"]
                    return fields["event"], json.loads(fields["data"])
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
        raise AssertionError("the stream has ended")


@asynccontextmanager
async def stream(service: Service, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with service.client.get(service.url + path, headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        yield Stream(response)


async def send(stack: Stack, **data: object) -> None:
    await stack.owners["shard-0"].submit(stack.event("EMAIL_SENT", **data))


async def test_a_stream_goes_on_where_its_client_left_it(stack: Stack) -> None:
    await stack.shard()
    await stack.broadcast()
    service = await stack.service()
    path = "/campaigns/c1/live?detailed=1"
    async with stream(service, path) as first:
        name, data = await first.next()
        assert (name, data["recovered"], data["snapshot"]["sent"]) == ("subscribed", False, 0)
        await send(stack, leadId="first")
        name, data = await first.next()
        assert (name, data["event"]["leadId"]) == ("campaign_progress_detailed", "first")
    await send(stack, leadId="second")
    async with stream(service, path, **{"Last-Event-ID": first.last_id}) as second:
        name, data = await second.next()
        assert (data["recovered"], data["snapshot"]["sent"]) == (True, 1)
        name, data = await second.next()
        assert (data["event"]["leadId"], data["counters"]["sent"]) == ("second", 2)


async def test_plain_streams_have_the_figures_only(stack: Stack) -> None:
    await stack.shard()
    await stack.broadcast()
    service = await stack.service()
    async with stream(service, "/campaigns/c1/live") as plain:
        await plain.next()
        await send(stack)
        name, data = await plain.next()
        assert (name, data["counters"]["sent"]) == ("campaign_progress", 1)
        assert "event" not in data


async def test_a_stopped_service_ends_its_streams(stack: Stack) -> None:
    await stack.shard()
    await stack.broadcast()
    service = await stack.service()
    async with stream(service, "/campaigns/c1/live") as open_stream:
        await open_stream.next()
        async with asyncio.timeout(5):
            await service.listener.stop()
            assert await open_stream.response.content.read() == b""


async def test_who_may_not_read_gets_no_stream(stack: Stack) -> None:
    service = await stack.service(api_keys="reader:read, sender:ingest")
    assert (await service.get("/campaigns/c1/live")).status == 401
    headers = {"Authorization": "Bearer sender"}
    assert (await service.get("/campaigns/c1/live", headers=headers)).status == 403


async def test_what_cannot_be_a_campaign_is_refused(stack: Stack) -> None:
    service = await stack.service()
    assert (await service.get("/campaigns/a%00b/live")).status == 422
    assert (await service.get(f"/campaigns/{'x' * 129}/live")).status == 422
