"""Plans carried out: whoever waits is a coroutine, or a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray_tracking.api.attempts import Failed, Pause, Plan, Reply, Request, Response, read
from ray_tracking.errors import Unreachable

T = TypeVar("T")


async def carry_out(plan: Plan[T], send: Callable[[Request], Awaitable[Response]]) -> T:
    """
    Do what a plan says, and return its result.

    Args:
        plan: Of one call.
        send: Sends a request; raises :class:`Unreachable` if there is no response.
    """
    said: Reply | Failed | None = None
    while True:
        try:
            step = plan.send(said)
        except StopIteration as end:
            result: T = end.value
            return result
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            said = None
            continue
        try:
            said = read(await send(step))
        except Unreachable as error:
            said = Failed(str(error))


def carry_out_here(plan: Plan[T], send: Callable[[Request], Response]) -> T:
    """The same in the thread that calls it."""
    said: Reply | Failed | None = None
    while True:
        try:
            step = plan.send(said)
        except StopIteration as end:
            result: T = end.value
            return result
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            said = None
            continue
        try:
            said = read(send(step))
        except Unreachable as error:
            said = Failed(str(error))
