from __future__ import annotations

import asyncio

from ray_tracking.http.shared import Shared


async def test_ten_who_ask_at_once_cost_one_question() -> None:
    asked = 0
    may_answer = asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await may_answer.wait()
        return asked

    shared = Shared(ask, for_s=0.5, clock_s=lambda: 0.0)
    pollers = [asyncio.create_task(shared.get()) for _ in range(10)]
    await asyncio.sleep(0)
    may_answer.set()

    assert await asyncio.gather(*pollers) == [1] * 10
    assert asked == 1


async def test_an_answer_holds_for_a_while_and_then_no_more() -> None:
    now_s, answers = 0.0, iter(range(10))

    async def ask() -> int:
        return next(answers)

    shared = Shared(ask, for_s=0.5, clock_s=lambda: now_s)
    assert await shared.get() == 0
    now_s = 0.5
    assert await shared.get() == 0
    now_s = 0.6
    assert await shared.get() == 1


async def test_whoever_was_told_does_not_ask() -> None:
    async def ask() -> int:
        raise AssertionError

    shared = Shared(ask, for_s=0.5, clock_s=lambda: 0.0)
    shared.put(7)
    assert await shared.get() == 7
