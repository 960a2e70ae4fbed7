"""Handlers hurt nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from ray_tracking.api.handlers import MAX_WAITING, Handlers

WITHIN_S = 5.0


@pytest.fixture
def handlers() -> Handlers:
    return Handlers(("tick", "tock"))


async def test_plain_and_async_handlers_hear_the_same(handlers: Handlers) -> None:
    heard: list[Any] = []

    async def later(payload: Any) -> None:
        heard.append(("async", payload))

    class Callable:
        async def __call__(self, payload: Any) -> None:
            heard.append(("object", payload))

    handlers.on("tick", lambda payload: heard.append(("plain", payload)))
    handlers.on("tick", later)
    handlers.on("tick", Callable())
    handlers.on("tick", lambda payload: later(payload))
    handlers.emit("tick", 1)
    handlers.emit("tock", 2)
    await handlers.finish(WITHIN_S)
    assert sorted(heard) == [("async", 1), ("async", 1), ("object", 1), ("plain", 1)]


async def test_each_hears_in_order(handlers: Handlers) -> None:
    heard: list[int] = []
    handlers.on("tick", heard.append)
    for number in range(50):
        handlers.emit("tick", number)
    await handlers.finish(WITHIN_S)
    assert heard == list(range(50))


async def test_off_and_once(handlers: Handlers) -> None:
    heard: list[Any] = []
    handlers.on("tick", heard.append, once=True)
    handlers.on("tock", heard.append)
    for name in ("tick", "tick", "tock"):
        handlers.emit(name, name)
    await handlers.finish(WITHIN_S)
    handlers.off("tock", heard.append)
    handlers.off("tock", heard.append)
    handlers.emit("tock", "not heard")
    await handlers.finish(WITHIN_S)
    assert sorted(heard) == ["tick", "tock"]
    assert not handlers.wants("tick", "tock")


async def test_a_failing_handler_is_logged_once_and_hurts_no_other(
    handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []
    calls: list[int] = []

    def fail(number: int) -> None:
        calls.append(number)
        raise RuntimeError("as told")

    handlers.on("tick", fail)
    handlers.on("tick", heard.append)
    with caplog.at_level(logging.INFO):
        for number in range(5):
            handlers.emit("tick", number)
        await handlers.finish(WITHIN_S)
    assert heard == calls == list(range(5))
    assert len(caplog.records) == 1


async def test_a_slow_handler_delays_nobody_and_keeps_the_newest(
    handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    go, has_begun = asyncio.Event(), asyncio.Event()
    slow, quick = list[int](), list[int]()

    async def wait(number: int) -> None:
        has_begun.set()
        await go.wait()
        slow.append(number)

    async def at_once(number: int) -> None:
        quick.append(number)

    handlers.on("tick", wait)
    handlers.on("tick", at_once)
    handlers.emit("tick", 0)
    await asyncio.wait_for(has_begun.wait(), WITHIN_S)
    for number in range(1, MAX_WAITING + 101):
        handlers.emit("tick", number)
        await asyncio.sleep(0)
    go.set()
    await handlers.finish(WITHIN_S)
    assert len(quick) == MAX_WAITING + 101
    assert slow == [0, *range(101, MAX_WAITING + 101)]
    assert len([record for record in caplog.records if "too slow" in record.message]) == 1


async def test_a_plain_handler_that_waits_does_not_hold_up_the_loop(handlers: Handlers) -> None:
    go = threading.Event()
    handlers.on("tick", lambda payload: go.wait(WITHIN_S))
    handlers.emit("tick", None)
    await asyncio.sleep(0)  # it would stand still here
    go.set()
    await handlers.finish(WITHIN_S)


async def test_a_handler_that_never_ends_is_not_waited_for(handlers: Handlers) -> None:
    ended = asyncio.Event()

    async def never(payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handlers.on("tick", never)
    handlers.emit("tick", None)
    await handlers.finish(0.01)
    await asyncio.wait_for(ended.wait(), WITHIN_S)


def test_what_there_is_not_is_an_error(handlers: Handlers) -> None:
    with pytest.raises(ValueError, match="'tack'; there are tick, tock"):
        handlers.on("tack", print)
    with pytest.raises(TypeError, match="cannot be called"):
        handlers.on("tick", None)  # type: ignore[arg-type]
