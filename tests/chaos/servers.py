"""
A Postgres and a Valkey of our own, each behind a :class:`~tests.chaos.link.Link`, as a
user has them on another machine: started again when they die, unless a fault keeps them down.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from ray_tracking.stores.embedded.paths import postgres_binaries, valkey_binary
from ray_tracking.stores.embedded.postgres import Postgres
from ray_tracking.stores.embedded.server import Server
from ray_tracking.stores.embedded.valkey import Valkey
from tests.chaos.link import Link

_TICK_S = 0.02
_READY_WITHIN_S = 60.0


class Disk:
    """
    A small disk of memory, which can be filled to the last byte.

    Args:
        directory: Where it is mounted.
        size_mib: How much fits on it.
    """

    def __init__(self, directory: Path, size_mib: int) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"
        directory.mkdir(parents=True, exist_ok=True)
        options = f"size={size_mib}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", str(directory)], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        free = shutil.disk_usage(self.directory).free
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while free > 0:
                    free -= file.write(bytes(min(free, 1 << 20)))
            except OSError:
                return

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=False)


class Outside:
    """
    Both servers.

    Args:
        root: Each gets a directory in it; an owner may have mounted disks there.
    """

    def __init__(self, root: Path) -> None:
        self.valkey_home = root / "redis"
        self.postgres_home = root / "db"
        for home in (self.valkey_home, self.postgres_home):
            home.mkdir(exist_ok=True, parents=True)
        self.valkey = Valkey(self.valkey_home, valkey_binary())
        self.postgres = Postgres(self.postgres_home, postgres_binaries())
        self.redis_link = Link(self._reach_valkey)
        self.postgres_link = Link(self._reach_postgres)
        # What the guard would write to its own log.
        log = logging.getLogger("guard")
        log.propagate = False
        log.handlers = [logging.FileHandler(root / "servers.log")]
        #: Servers that a fault keeps down.
        self.kept_down: set[Server] = set()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def redis_url(self) -> str:
        """Through the cable."""
        return f"redis://127.0.0.1:{self.redis_link.port}"

    @property
    def database_url(self) -> str:
        """Through the cable."""
        port = self.postgres_link.port
        return f"postgresql://postgres@127.0.0.1:{port}/ray_tracking?sslmode=disable"

    def redis(self) -> Redis:
        """A client of our own, beside the cable."""
        return Redis.from_url(self.valkey.url, protocol=2)

    async def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())
        await self.ready()
        await self.redis_link.start()
        await self.postgres_link.start()

    async def ready(self) -> None:
        """Return when both serve, or those that nobody keeps down."""
        async with asyncio.timeout(_READY_WITHIN_S):
            while not all(s.ready or s in self.kept_down for s in (self.valkey, self.postgres)):  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(_TICK_S)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        for server in (self.valkey, self.postgres):
            await self._end(server, server.stop_signal)
        await self.redis_link.close()
        await self.postgres_link.close()

    async def take_down(self, server: Server, number: signal.Signals = signal.SIGKILL) -> None:
        """End a server, and keep it down until :meth:`bring_up`."""
        self.kept_down.add(server)
        await self._end(server, number)

    async def bring_up(self, server: Server) -> None:
        """Return when it serves again."""
        self.kept_down.discard(server)
        await self.ready()

    async def _keep(self) -> None:
        while True:
            for server in (self.valkey, self.postgres):
                if server not in self.kept_down:
                    server.tick(time.monotonic())
            await asyncio.sleep(_TICK_S)

    async def _end(self, server: Server, number: signal.Signals) -> None:
        process = server.process
        if process is None:
            return
        server.kill(number)
        while process.poll() is None:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(_TICK_S)
        server.process, server.ready = None, False

    async def _reach_valkey(self) -> Any:
        return await asyncio.open_unix_connection(str(self.valkey.sockets / "valkey.sock"))

    async def _reach_postgres(self) -> Any:
        return await asyncio.open_unix_connection(str(self.postgres.sockets / ".s.PGSQL.5432"))
