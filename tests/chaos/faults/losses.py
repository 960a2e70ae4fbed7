"""
Logs that lose what they had acknowledged.

No service can save what its log forgets. It must say so, loudly: the log has a gap, health
is unhealthy, events are refused or spooled; and when an operator has accepted the gap,
everything acknowledged from then on is a row again.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from typing import ClassVar

from tests.chaos.faults.base import SOON_S, Fault
from tests.chaos.faults.storage import Stored, log_directory
from tests.chaos.history import Loss
from tests.chaos.probe import settled, taken_after

_LOUD_WITHIN_S = 20.0
_MENDED_WITHIN_S = 120.0


class Lossy(Stored):
    """Something is lost; an operator accepts it."""

    pairs = False
    weight = 0.12
    #: Rows that are there before it are there after it.
    _settled_s = 0.0

    async def strike(self) -> bool:
        self._settled_s = time.monotonic()
        if await settled(self.scene.api, self.target, 30) is not None:
            return False  # a backlog of another fault: nobody could say what may be lost
        self.scene.strikes[f"log lost: {self.name}"] += 1
        await self.lose()
        return True

    async def lose(self) -> None:
        """Do it."""
        raise NotImplementedError

    async def hold(self) -> None:
        """Until it is said aloud."""
        deadline_s = time.monotonic() + _LOUD_WITHIN_S
        while time.monotonic() < deadline_s:
            health = await self.target.health()
            if health is not None and health["overall"] == "unhealthy":
                return
            await asyncio.sleep(0.3)
        self.scene.history.stuck.append(f"{self.name}: the log lost events, and health is quiet")

    async def heal(self) -> None:
        """``ray-tracking log accept-gap``, as often as there is one."""
        await super().heal()
        deadline_s = time.monotonic() + _MENDED_WITHIN_S
        while time.monotonic() < deadline_s:
            code, said = await self.target.command("log", "gaps")
            for partition in sorted(set(re.findall(r"partition (\d+),", said))):
                await self.target.command("log", "accept-gap", partition, "--yes")
            # Streams in which nothing has come since show their gap with the next event.
            taken = await taken_after(self.scene.api, 2 * SOON_S)
            if code == 0 and said.startswith("no gaps") and taken is not None:
                break
        self.scene.history.losses.append(Loss(self._settled_s, time.monotonic()))


class Flushed(Lossy):
    """``FLUSHALL``, by hand."""

    name = "redis-flushed"

    async def lose(self) -> None:
        async with self.servers.redis() as redis:
            await redis.flushall()


class Replaced(Lossy):
    """An empty server where the full one was."""

    name = "redis-replaced"

    async def lose(self) -> None:
        servers = self.servers
        await servers.take_down(servers.valkey)
        shutil.rmtree(log_directory(servers.valkey_home))
        await servers.bring_up(servers.valkey)


class Restored(Lossy):
    """A backup of some time ago where the current state was."""

    name = "redis-restored"
    age_s: ClassVar[float] = 6.0

    async def lose(self) -> None:
        servers = self.servers
        directory = log_directory(servers.valkey_home)
        backup = directory.with_name("backup")
        shutil.copytree(directory, backup)
        await asyncio.sleep(self.age_s)
        await servers.take_down(servers.valkey)
        shutil.rmtree(directory)
        backup.rename(directory)
        await servers.bring_up(servers.valkey)


FAULTS: tuple[type[Fault], ...] = (Flushed, Replaced, Restored)
