"""The jobs of replays in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray_tracking.errors import Unavailable
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.stores.recompute import Recompute


class Jobs:
    """
    What Ray does with the jobs of replays, in this process.

    Args:
        database_url: Of Postgres.
        schema: Where the tables are.
    """

    def __init__(self, database_url: str, schema: str) -> None:
        self._where = (database_url, schema)
        self._running: dict[str, asyncio.Task[None]] = {}
        #: Why no job can be submitted, if it cannot.
        self.refuses: str | None = None
        #: Cleared: the processes of jobs do not start.
        self.starting = asyncio.Event()
        self.starting.set()

    async def submit(self, replay: Mapping[str, Any]) -> None:
        """As :class:`ray_tracking.jobs.submit.ReplayJobs`."""
        if self.refuses:
            raise Unavailable(self.refuses)
        work = self._carry_out(replay["id"], replay["campaign_id"])
        self._running[replay["id"]] = asyncio.create_task(work)

    async def stop(self, replay: Mapping[str, Any]) -> None:
        """End its process."""
        await self._end(replay["id"])

    async def close(self) -> None:
        """End all of them."""
        for replay_id in list(self._running):
            await self._end(replay_id)

    async def _end(self, replay_id: str) -> None:
        task = self._running.pop(replay_id)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _carry_out(self, replay_id: str, campaign_id: str) -> None:
        await self.starting.wait()
        recompute = Recompute(*self._where, replay_id)
        try:
            await carry_out(recompute, campaign_id)
        finally:
            await recompute.close()
