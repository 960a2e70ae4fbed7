"""The service under test, started and stopped as a user does: ``ray-tracking run``."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from ray_tracking.settings import environment

_START_S, _STOP_S = 120, 60
_DATABASE = re.compile(r"psql '([^']+)'")

#: Nothing is limited but by how fast it is; the rest is as users have it.
LIMITS = {
    "max_events_per_window": 1_000_000_000,
    "burst_capacity": 1_000_000_000,
    "deduplication_cache_size": 5_000_000,
}


class Service:
    """
    A service with fresh data, on a port of its own.

    Args:
        settings: On top of :data:`LIMITS`.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = ""
        self.settings = {**LIMITS, **(settings or {}), "port": self.port}
        self._folder = tempfile.TemporaryDirectory(prefix="ray_tracking_bench_")
        self._log = Path(self._folder.name) / "service.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Service:
        folder = Path(self._folder.name)
        file = folder / "settings.yaml"
        file.write_text(yaml.safe_dump({**self.settings, "data_dir": str(folder / "data")}))
        program = Path(sys.executable).with_name("ray-tracking")
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program, "run", file, stdout=log, stderr=log,
                env=_plain_environment(), start_new_session=True,
            )  # fmt: skip
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await self._end(self._process)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        code = await self._end(self._process)
        if code != 0:
            raise SystemExit(f"the service ended with exit code {code}:\n{self._tail()}")
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process that everything else is below."""
        assert self._process is not None
        return self._process.pid

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(_START_S):
            while True:
                if process.returncode is not None:
                    raise SystemExit(f"the service did not start:\n{self._tail()}")
                found = _DATABASE.search(self._log.read_text(errors="replace"))
                if found and await _is_ready(session, self.url):
                    self.database_url = found[1]
                    return
                await asyncio.sleep(0.2)

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise SystemExit(f"the service did not stop within {_STOP_S} s") from None

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _plain_environment() -> dict[str, str]:
    """Ours without any setting of the service: a figure must not depend on the shell."""
    plain = set(environment.PLAIN_NAMES.values())
    return {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on, not read
        if not name.startswith(environment.PREFIX) and name not in plain
    }
