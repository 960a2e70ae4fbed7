"""Shard, writer and broadcaster in this process, each with what Ray is to it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from ray_tracking.actors.broadcaster import Broadcaster, BroadcasterConfig
from ray_tracking.actors.pump import WriterConfig
from ray_tracking.actors.shard import Shard, ShardConfig
from ray_tracking.actors.writer import Writer
from ray_tracking.clock import Clock, steady_clock
from ray_tracking.errors import Unavailable
from ray_tracking.pipeline.append import SpoolChunk
from ray_tracking.pipeline.gather import (
    Chunk,
    Outcome,
    pack,
    pack_chunk,
    unpack_outcomes,
)
from ray_tracking.pipeline.route import Submission


class _Part:
    """What stands for the process of a part."""

    def __init__(self) -> None:
        #: Why its process would have ended.
        self.died: str | None = None
        self.killed = False

    @property
    def gone(self) -> bool:
        """Whether its process has ended, or would have."""
        return self.died is not None or self.killed

    def _die(self, reason: str) -> None:
        self.died = reason


class Owner(_Part):
    """
    A shard in this process.

    Args:
        config: Of the shard.
        clock: Instead of the real one.
    """

    def __init__(self, config: ShardConfig, clock: Clock | None = None) -> None:
        super().__init__()
        self.shard = Shard(config, self._die, clock or steady_clock())

    async def submit(self, *submissions: Submission) -> list[Outcome]:
        """What becomes of each."""
        return unpack_outcomes(await self.shard.submit(pack(submissions)))

    async def drain_spool(
        self, spool: SpoolChunk, *submissions: Submission, offsets: Sequence[int] | None = None
    ) -> list[Outcome]:
        """What becomes of each event of a chunk; they stand one after the other in it."""
        spool_id, start, end = spool
        if offsets is None:
            offsets = range(start, start + len(submissions))
        chunk = Chunk(spool_id, start, end, array("Q", offsets).tobytes(), pack(submissions))
        return unpack_outcomes(await self.shard.drain_spool(pack_chunk(chunk)))

    async def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return await self.shard.status()

    async def kill(self) -> None:
        """End it as SIGKILL does: whatever is on its way is not waited for."""
        self.killed = True
        await self.shard.close()


class Scribe(_Part):
    """
    A writer in this process.

    Args:
        config: Of the writer.
    """

    def __init__(self, config: WriterConfig) -> None:
        super().__init__()
        self.writer = Writer(config, self._die, steady_clock())

    async def trouble(self) -> str | None:
        """What it complains of."""
        status = await self.writer.status()
        trouble: str | None = status["trouble"]
        return trouble

    async def kill(self) -> None:
        """End it as SIGKILL does: a flush under way is not waited for."""
        self.killed = True
        await self.writer.close()


class Voice(_Part):
    """
    A broadcaster in this process.

    Args:
        config: Of the broadcaster.
    """

    def __init__(self, config: BroadcasterConfig) -> None:
        super().__init__()
        self.broadcaster = Broadcaster(config, self._die, steady_clock())
        self._calls: set[asyncio.Task[bytes]] = set()

    async def call(self, method: Callable[[bytes], Any], blob: bytes) -> bytes:
        """What is between a replica and it: a call that is lost when it dies."""
        if self.killed:
            raise Unavailable("nobody is there")
        call = asyncio.ensure_future(method(blob))
        self._calls.add(call)
        await asyncio.wait([call])
        self._calls.discard(call)
        if call.cancelled():
            raise Unavailable("the connection was lost")
        return call.result()

    async def kill(self) -> None:
        """End it as SIGKILL does."""
        self.killed = True
        for call in self._calls:
            call.cancel()
        await self.broadcaster.close()
