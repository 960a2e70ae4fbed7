"""Spooler: it ends when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ray_tracking.clock import steady_clock
from ray_tracking.http.spooler import Spooler
from ray_tracking.pipeline.room import Room
from ray_tracking.stores.spool import Spool


class _Deaf:
    """A log that answers in the very moment in which its caller is told to end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def report_spool(self, spool_id: str, report: object) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return  # as asyncio.wait_for does before Python 3.12, which redis-py calls

    async def forget_spool(self, spool_id: str) -> bool:
        return True

    async def close(self) -> None:
        return


async def test_it_ends_also_where_a_cancellation_is_swallowed(tmp_path: Path) -> None:
    async def nobody(shard: int, blob: bytes) -> bytes:
        raise AssertionError("nothing is drained")

    deaf: Any = _Deaf()
    own = await Spool.create(tmp_path, max_bytes=1 << 20)
    spooler = Spooler(tmp_path, own, deaf, nobody, [0], Room(10), steady_clock())
    await spooler.start()
    await deaf.asked.wait()
    closing = asyncio.create_task(spooler.close())
    done, _ = await asyncio.wait([closing], timeout=10)
    assert done
