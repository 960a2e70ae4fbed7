"""How late a process's event loop comes to what is due: what everybody on it waits beside."""

from __future__ import annotations

import asyncio

_EVERY_S = 0.1
#: What the last second says counts for about two thirds.
_SHARE = 0.1


class LoopLag:
    """Measures while :meth:`run` runs."""

    def __init__(self) -> None:
        #: On average over the last second or so.
        self.ms = 0.0

    async def run(self) -> None:
        """Ask to be woken, again and again, and see how late that is."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            late_ms = max(0.0, 1000 * (loop.time() - due_s))
            self.ms += _SHARE * (late_ms - self.ms)
