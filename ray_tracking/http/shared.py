"""One answer for many who ask at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """
    Asks once, whoever wants to know, for as long as an answer holds.

    Args:
        ask: What is asked. It does not raise.
        for_s: How long an answer holds.
        clock_s: A clock that never goes back.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        for_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._for_s = for_s
        self._clock_s = clock_s
        self._lock = asyncio.Lock()
        self._answer: tuple[float, T] | None = None

    def put(self, answer: T) -> None:
        """What it is now, told without being asked."""
        self._answer = self._clock_s(), answer

    async def get(self) -> T:
        """The last answer while it holds; else the next, for all who wait for it."""
        async with self._lock:
            if self._answer is None or self._clock_s() - self._answer[0] > self._for_s:
                answer = await self._ask()
                self._answer = self._clock_s(), answer
            return self._answer[1]
