"""Appends that share a write and an fsync: whatever is queued while one is on its way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ray_tracking.errors import Unavailable
from ray_tracking.stores.spool.frames import frame_bytes

#: What goes into one write, unless a single record is larger.
_GROUP_BYTES = 4 * 1024 * 1024

#: Writes payloads with their numbers of events, all or none, and returns their offsets.
WriteGroup = Callable[[Sequence[tuple[bytes, int]]], Awaitable[list[int]]]


class SpoolFull(Unavailable):
    """The spool cannot take the events: it has no room left, or its disk fails. Says why."""

    code = "spool_full"


class _Append(NamedTuple):
    payload: bytes
    events: int
    offset: asyncio.Future[int]


class GroupCommit:
    """
    A queue of appends, written in order.

    Args:
        write: One call to it is on its way at a time.
    """

    def __init__(self, write: WriteGroup) -> None:
        self._write = write
        self._queue: deque[_Append] = deque()
        self._task: asyncio.Task[None] | None = None
        #: The frames that are queued or being written.
        self.waiting_bytes = 0

    def submit(self, payload: bytes, events: int) -> asyncio.Future[int]:
        """Queue an append. The future has its offset, or :class:`SpoolFull`."""
        offset: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Append(payload, events, offset))
        self.waiting_bytes += frame_bytes(payload)
        if self._task is None:
            self._task = asyncio.create_task(self._commit())
        return offset

    async def finish(self) -> None:
        """Return when nothing is queued any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _commit(self) -> None:
        while self._queue:
            group, size = self._next_group()
            offsets: list[int] = []
            reason = ""
            try:
                offsets = await self._write([(append.payload, append.events) for append in group])
            except Exception as error:  # whatever it is, each of them must hear of it
                reason = f"not written: {error}"
            self.waiting_bytes -= size
            for index, append in enumerate(group):
                if append.offset.done():  # nobody waits for it any more
                    continue
                if offsets:
                    append.offset.set_result(offsets[index])
                else:
                    append.offset.set_exception(SpoolFull(reason))
        self._task = None

    def _next_group(self) -> tuple[list[_Append], int]:
        group = [self._queue.popleft()]
        size = frame_bytes(group[0].payload)
        while self._queue and size + frame_bytes(self._queue[0].payload) <= _GROUP_BYTES:
            group.append(self._queue.popleft())
            size += frame_bytes(group[-1].payload)
        return group, size
