"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

_LOOK_EVERY_S = 0.01


async def eventually(predicate: Callable[[], Any], within_s: float = 8.0) -> Any:
    """
    The first true answer of a question that is asked again and again.

    Args:
        predicate: Plain or async; whatever it answers that is not false is returned.
        within_s: When to give up, on a machine that is busy.

    Raises:
        AssertionError: With the last answer, when it never was true.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if loop.time() > deadline_s:
            raise AssertionError(f"still {answer!r} after {within_s} s")
        await asyncio.sleep(_LOOK_EVERY_S)
