"""Turns: batches are taken apart one at a time, and who would wait too long is told so."""

from __future__ import annotations

import asyncio

import pytest

from ray_tracking.http.asgi import Refusal, Scope
from ray_tracking.http.turns import Turns


def request(size_bytes: int) -> Scope:
    return {"type": "http", "headers": [(b"content-length", str(size_bytes).encode())]}


async def test_one_has_its_turn_at_a_time() -> None:
    turns = Turns()
    at_work = 0

    async def take_apart() -> None:
        nonlocal at_work
        async with turns.turn(100):
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0)
            at_work -= 1

    await asyncio.gather(*[take_apart() for _ in range(5)])


async def test_the_next_has_its_turn_when_one_fails() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError):
        async with turns.turn(100):
            raise ZeroDivisionError
    async with turns.turn(100):
        pass


async def test_who_would_wait_too_long_is_told_when_to_come_again() -> None:
    turns = Turns()
    turns.pace.note(1000, 1.0)
    with turns.waiting(request(2500)):
        with pytest.raises(Refusal) as refused, turns.waiting(request(1)):
            pass
        assert refused.value.status == 503
        assert (b"retry-after", b"3") in refused.value.headers
    with turns.waiting(request(1)):
        pass
