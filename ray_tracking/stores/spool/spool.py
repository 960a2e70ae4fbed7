"""
One spool: appends that are fsynced together, and reading them again in order.

All work on files is done by one thread of the spool's own. The event loop never waits
for an fsync, and nothing overtakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from ray_tracking.stores.spool.directory import (
    Lock,
    lock_spool,
    make_spool,
    remove_spool,
    stored_bytes,
)
from ray_tracking.stores.spool.frames import MAX_EVENTS, MAX_PAYLOAD_BYTES, Record, frame_bytes
from ray_tracking.stores.spool.group_commit import GroupCommit, SpoolFull
from ray_tracking.stores.spool.segments import Figures, Segments

_SEGMENT_BYTES = 16 * 1024 * 1024
#: How old the known size of the node's other spools may be.
_OTHERS_AGE_S = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class Spool:
    """
    A spool whose lock this process holds. Get one from :meth:`create` or :meth:`adopt`.

    It belongs to the event loop that it is used in. Offsets that it takes are those that a
    record, :attr:`cursor` or :attr:`end` gave.
    """

    def __init__(self, path: Path, lock: Lock, segments: Segments, max_bytes: int | None) -> None:
        self._path = path
        self._lock = lock
        self._segments = segments
        self._figures = segments.figures
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._commits = GroupCommit(lambda group: self._run(segments.write, group))
        #: Appends are let in one after the other, and none while the spool is closing.
        self._admission = asyncio.Lock()
        self._max_bytes = max_bytes
        self._others_bytes = 0
        self._others_until_s = float("-inf")

    @classmethod
    async def create(
        cls, directory: Path, *, max_bytes: int, segment_bytes: int = _SEGMENT_BYTES
    ) -> Spool:
        """
        Make a new spool.

        Args:
            directory: Of all spools of this node; made if it is missing.
            max_bytes: How large they may be together, with what waits here to be written.
                A segment counts until all of it is drained.
            segment_bytes: A segment that is as large is closed.

        Raises:
            OSError: It cannot be made.
        """
        path, lock = await asyncio.to_thread(make_spool, directory)
        return cls(path, lock, Segments(path, segment_bytes), max_bytes)

    @classmethod
    async def adopt(cls, directory: Path, spool_id: str) -> Spool | None:
        """
        Take over the spool of a process that died, to drain it. It takes no appends.

        Returns:
            None when another process holds it, or has drained and removed it.

        Raises:
            OSError: It cannot be read.
        """
        path = directory / spool_id
        lock = await asyncio.to_thread(lock_spool, path)
        if lock is None:
            return None
        segments = Segments(path, _SEGMENT_BYTES)
        try:
            await asyncio.to_thread(segments.recover)
        except BaseException:
            lock.close()
            raise
        return cls(path, lock, segments, None)

    # -- how it stands -----------------------------------------------------

    @property
    def id(self) -> str:
        """Its name in the directory; no other spool ever has the same."""
        return self._path.name

    @property
    def cursor(self) -> int:
        """Everything before this offset is drained."""
        return self._figures.cursor

    @property
    def end(self) -> int:
        """Everything before this offset is fsynced."""
        return self._figures.end

    @property
    def is_empty(self) -> bool:
        """Whether everything is drained, and nothing is on its way in."""
        return self.cursor == self.end and not self._commits.waiting_bytes

    @property
    def size_bytes(self) -> int:
        """How much is fsynced and not drained."""
        return self.end - self.cursor

    @property
    def events(self) -> int:
        """How many events are fsynced and not drained; of damage, what was counted before it."""
        return self._figures.events

    @property
    def corrupt(self) -> int:
        """At how many places this process met damage and passed over it."""
        return self._figures.corrupt

    # -- from here to there ------------------------------------------------

    async def append(self, payload: bytes, events: int) -> int:
        """
        Append a record; its offset, once it is fsynced.

        When the caller is cancelled, it may or may not be appended.

        Args:
            payload: At most ``MAX_PAYLOAD_BYTES``.
            events: How many events are in it.

        Raises:
            SpoolFull: It is not in the spool.
            ValueError: It is too large.
        """
        if self._max_bytes is None:
            raise RuntimeError("an adopted spool takes no appends")
        if len(payload) > MAX_PAYLOAD_BYTES or not 0 <= events <= MAX_EVENTS:
            raise ValueError(f"{len(payload)} bytes with {events} events are no record")
        async with self._admission:
            if self._lock.closed:
                raise SpoolFull("the spool is closed")
            others_bytes = await self._count_others()
            taken = self._figures.stored_bytes + self._commits.waiting_bytes + others_bytes
            if taken + frame_bytes(payload) > self._max_bytes:
                raise SpoolFull(f"{taken} of {self._max_bytes} bytes are taken")
            offset = self._commits.submit(payload, events)
        return await offset

    async def _count_others(self) -> int:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._others_until_s:
            self._others_bytes = await self._run(stored_bytes, self._path.parent, self.id)
            self._others_until_s = now_s + _OTHERS_AGE_S
        return self._others_bytes

    async def read(self, offset: int, max_bytes: int) -> list[Record]:
        """
        Fsynced records from an offset on, in order.

        Damage is copied to ``corrupt/``, logged, counted and passed over. With nothing
        before it to be drained, the cursor moves behind it.

        Args:
            offset: Where to begin.
            max_bytes: How much, frames included; a record that is larger comes alone.

        Returns:
            At least one record, if there is one.

        Raises:
            OSError: They cannot be read.
        """
        return await self._run(self._segments.read, offset, max_bytes)

    async def advance(self, offset: int) -> None:
        """
        Remember that everything before an offset is drained. Never goes back.

        Segments wholly before it are deleted. If the cursor cannot be written, that is
        logged, and after a crash it is an earlier one.

        Raises:
            OSError: What lies between cannot be read. The cursor has not moved.
        """
        await self._run(self._segments.advance, offset)

    async def close(self, remove_if_empty: bool = True) -> None:
        """Write what is queued, and give the spool up. If it is not empty, it is an orphan then."""
        async with self._admission:
            if self._lock.closed:
                return
            await self._commits.finish()
            await self._run(self._segments.close)
            if remove_if_empty and self.is_empty:
                await self._run(remove_spool, self._path)
            self._lock.close()
            self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Work in the spool's thread. How the spool stands after it is known with the result."""

        def job() -> tuple[T, Figures]:
            return work(*args, **kwargs), self._segments.figures

        result, self._figures = await asyncio.get_running_loop().run_in_executor(self._thread, job)
        return result
