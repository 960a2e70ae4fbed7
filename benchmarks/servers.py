"""A Postgres and a Valkey as a user has them beside the service, to be stopped and started."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from ray_tracking.stores.embedded.paths import postgres_binaries, valkey_binary
from ray_tracking.stores.embedded.postgres import Postgres
from ray_tracking.stores.embedded.server import Server
from ray_tracking.stores.embedded.valkey import Valkey

_WITHIN_S = 60.0
_TICK_S = 0.01


class Servers:
    """Both, with fresh data, running while this is entered. They end with this process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ray_tracking_servers_")
        root = Path(self._folder.name)
        self.postgres = Postgres(root, postgres_binaries())
        self.valkey = Valkey(root, valkey_binary())

    async def __aenter__(self) -> Servers:
        await self.start(self.valkey)
        await self.start(self.postgres)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(self.postgres)
        await self.stop(self.valkey)
        self._folder.cleanup()

    @property
    def settings(self) -> dict[str, str]:
        """What makes a service use them."""
        return {"database_url": self.postgres.url, "redis_url": self.valkey.url}

    async def start(self, server: Server) -> None:
        """Return when it serves."""
        async with asyncio.timeout(_WITHIN_S):
            while not server.ready:
                server.tick(time.monotonic())
                await asyncio.sleep(_TICK_S)

    async def stop(self, server: Server) -> None:
        """Stop it as its administrator does; on return, connections are refused."""
        if server.process is None:
            return
        server.kill(server.stop_signal)
        await asyncio.to_thread(server.process.wait, _WITHIN_S)
        server.clean_up()
        server.process, server.ready = None, False
