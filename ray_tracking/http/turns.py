"""
Batches are taken apart one at a time.

That is work for the processor alone, so several at once would only make each of them later
and hold the memory of all. Who would wait too long is told so before their body is read: a
batch that is read, taken apart and then refused costs as much as one that is taken. So a turn
lasts until there is room behind it, too, and the turns go no faster than events go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from ray_tracking.http.asgi import Scope, announced_bytes, overloaded
from ray_tracking.pipeline.pace import Pace

_LONGEST_WAIT_S = 1.0
#: Since a request began. In a queue that stands still, nobody waits for those before as well.
_PATIENCE_S = 2.0
_LOOK_EVERY_S = 0.005


class Turns:
    """The batches of a replica."""

    def __init__(self) -> None:
        self.pace = Pace(_LONGEST_WAIT_S)
        self._lock = asyncio.Lock()

    @contextmanager
    def waiting(self, scope: Scope) -> Iterator[None]:
        """
        Count a request as waiting until it is through.

        Raises:
            Refusal: 503, if its turn would come too late.
        """
        if self.pace.too_long:
            raise overloaded(self.pace.wait_s)
        # A length that nobody announced is bounded like any other by `Ports.requests`.
        with self.pace.waiting(announced_bytes(scope) or 0):
            yield

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for the turn of a body, and have it."""
        async with self._lock:
            began_s = time.perf_counter()
            yield
            self.pace.note(size_bytes, time.perf_counter() - began_s)

    async def until(self, has_room: Callable[[], bool], began_s: float) -> bool:
        """
        Keep the turn until there is room behind it; False where that takes too long.

        Args:
            has_room: Whether there is.
            began_s: When the request began, by ``time.perf_counter``.
        """
        while not has_room():
            if time.perf_counter() - began_s > _PATIENCE_S:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
        return True
