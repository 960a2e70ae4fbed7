"""What attached processes are told, by a real broadcaster on a real log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import orjson
import pytest

from ray_tracking.pipeline.broadcast import BROADCASTED, Hear, Polled
from tests.support.live import LiveClient
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


class Listener:
    """
    An attached process.

    Args:
        stack: With a broadcaster.
        events: Whether it wants to hear of each event.
    """

    def __init__(self, stack: Stack, *, events: bool) -> None:
        self._stack = stack
        self._events = events
        self._asked = Hear(events=events)

    async def ask(self) -> list[tuple[str, Any]]:
        """What was told since the last time."""
        voice = self._stack.voice
        assert voice is not None
        async with asyncio.timeout(10):
            blob = await voice.broadcaster.hear(msgspec.msgpack.encode(self._asked))
        polled = msgspec.msgpack.decode(blob, type=Polled)
        self._asked = Hear(polled.epoch, polled.start + len(polled.frames), self._events)
        return [(frame.name, orjson.loads(frame.data)) for frame in polled.frames]

    async def until(self, count: int) -> list[Any]:
        """So many events, when they are there."""
        heard: list[Any] = []
        while len(heard) < count:
            heard += [one for name, told in await self.ask() if name == BROADCASTED for one in told]
        return heard


async def test_each_event_is_told_to_who_asks_for_it(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.broadcast()
    listener = Listener(stack, events=True)
    assert await listener.ask() == []
    one = stack.event("EMAIL_OPEN", campaignId="c1", eventId="mine")
    other = stack.event("ACCOUNT_HEALTH_UPDATE")
    await owner.submit(one, other)
    heard = await listener.until(2)
    assert ["c1", "EMAIL_OPEN", "mine"] in heard
    assert [None, "ACCOUNT_HEALTH_UPDATE"] in [told[:2] for told in heard]


async def test_it_costs_nothing_where_nobody_asks(stack: Stack) -> None:
    owner = await stack.shard()
    voice = await stack.broadcast()
    listener = Listener(stack, events=False)
    await listener.ask()
    await owner.submit(*[stack.event() for _ in range(10)])

    async def has_read() -> bool:
        return (await voice.broadcaster.status())["events"] == 10

    await eventually(has_read)
    await voice.broadcaster.tell("circuit_opened", {"name": "redis"})
    assert await listener.ask() == [("circuit_opened", {"name": "redis"})]


async def test_live_clients_hear_only_what_is_for_them(stack: Stack) -> None:
    """What /asyncapi.json describes, and no breaker, letter or event of others."""
    owner = await stack.shard()
    voice = await stack.broadcast()
    service = await stack.service()
    listener = Listener(stack, events=True)
    await listener.ask()
    async with LiveClient(service.url) as client:
        await client.say("subscribe_system")
        await client.say("ping")
        await client.until("pong", lambda data: data == {})
        await owner.submit(stack.event())
        await listener.until(1)
        for name in ("circuit_opened", "dead_letter", "initialized", "backpressure_changed"):
            await voice.broadcaster.tell(name, {"name": name})
        told = await client.hear()
    assert (told["event"], told["data"]) == ("backpressure_changed", {"name": told["event"]})
    names = [name for name, _ in await listener.ask()]
    assert names == ["circuit_opened", "dead_letter", "initialized", "backpressure_changed"]


async def test_who_comes_to_another_broadcaster_hears_what_that_has_told(stack: Stack) -> None:
    await stack.shard()
    await stack.broadcast()
    listener = Listener(stack, events=False)
    await listener.ask()
    voice = await stack.broadcast()
    await voice.broadcaster.tell("initialized", None)
    assert await listener.ask() == [("initialized", None)]
