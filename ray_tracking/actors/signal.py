"""Waking the tasks of one actor."""

from __future__ import annotations

import asyncio


class Signal:
    """
    Something has changed: whoever waits looks again.

    A waiter looks first and waits then, without an ``await`` in between; so nothing is missed,
    and a wait may end for nothing.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        """Wake everybody who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, at_most_ms: float | None = None) -> None:
        """Return at the next signal, or after some time."""
        try:
            async with asyncio.timeout(at_most_ms / 1000 if at_most_ms is not None else None):
                await self._event.wait()
        except TimeoutError:
            return
