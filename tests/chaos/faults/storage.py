"""Disks and memories that are full, and power that fails."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import ClassVar

from tests.chaos.faults.base import Fault
from tests.chaos.servers import Disk, Outside


class Stored(Fault):
    """Of servers outside, whose disks and processes are ours."""

    outside = True
    weight = 0.3
    hold_s: ClassVar[tuple[float, float]] = (2.0, 5.0)

    @property
    def servers(self) -> Outside:
        assert self.target.outside is not None
        return self.target.outside

    async def hold(self) -> None:
        await asyncio.sleep(self.scene.random.uniform(*self.hold_s))

    async def heal(self) -> None:
        await self.servers.ready()


class FullDisk(Stored):
    """Not one byte is free, for some seconds."""

    place: ClassVar[str]
    pairs = False

    def reason_to_skip(self) -> str | None:
        if reason := super().reason_to_skip():
            return reason
        return None if self._disk() else "no disk of memory could be mounted: needs root"

    def _disk(self) -> Disk | None:
        return self.target.disks.get(self.place)

    async def strike(self) -> bool:
        disk = self._disk()
        assert disk is not None
        self.scene.strikes[f"disk full: {self.place}"] += 1
        await asyncio.to_thread(disk.fill)
        return True

    async def heal(self) -> None:
        disk = self._disk()
        assert disk is not None
        disk.free()
        await super().heal()


class FullRedisDisk(FullDisk):
    name = "redis-disk-full"
    place = "redis"


class FullPostgresDisk(FullDisk):
    name = "postgres-disk-full"
    place = "postgres"


class FullSpoolDisk(FullDisk):
    """And the log is away, so that the spool is needed."""

    name = "spool-disk-full"
    place = "spool"

    async def strike(self) -> bool:
        self.servers.redis_link.refuse()
        self.servers.redis_link.reset()
        return await super().strike()

    async def heal(self) -> None:
        await super().heal()
        await self.servers.redis_link.heal()


class FullRedis(Stored):
    """``maxmemory`` is reached: writes are refused, reads are answered."""

    name = "redis-memory-full"

    async def strike(self) -> bool:
        self.scene.strikes["memory full: redis"] += 1
        await self._limit(1_000_000)
        return True

    async def heal(self) -> None:
        await super().heal()
        await self._limit(0)

    async def _limit(self, size_bytes: int) -> None:
        async with self.servers.redis() as redis:
            await redis.config_set("maxmemory", size_bytes)


class PowerCut(Stored):
    """
    The log's machine loses power: what was not fsynced is gone.

    No answer gets out any more; what the file holds after ``WAITAOF`` is on the disk. What
    is written from then on was acknowledged by nobody, and is cut off somewhere.
    """

    name = "power-cut"
    pairs = False
    hold_s = (0.0, 2.0)

    async def strike(self) -> bool:
        servers = self.servers
        if not servers.valkey.ready:
            return False
        self.scene.strikes["power cut: redis"] += 1
        servers.redis_link.answers.clear()
        async with servers.redis() as redis:
            await redis.set("chaos:tick", self.scene.strikes["power cut: redis"])
            await redis.execute_command("WAITAOF", 1, 0, 5000)
        file = newest_log_file(servers.valkey_home)
        safe_bytes = file.stat().st_size
        await asyncio.sleep(self.scene.random.uniform(0.05, 0.5))
        await servers.take_down(servers.valkey, signal.SIGKILL)
        if newest_log_file(servers.valkey_home) == file:
            os.truncate(file, self.scene.random.randint(safe_bytes, file.stat().st_size))
        servers.redis_link.reset()  # and with it the answers that were held
        await servers.redis_link.heal()
        return True

    async def heal(self) -> None:
        await self.servers.bring_up(self.servers.valkey)


def log_directory(home: Path) -> Path:
    """Where Valkey keeps its append-only files."""
    return home / "valkey" / "appendonlydir"


def newest_log_file(home: Path) -> Path:
    """The one that is written to."""
    files = log_directory(home).glob("*.incr.aof")
    return max(files, key=lambda file: int(file.name.split(".")[-3]))


FAULTS: tuple[type[Fault], ...] = (
    FullRedisDisk,
    FullPostgresDisk,
    FullSpoolDisk,
    FullRedis,
    PowerCut,
)
