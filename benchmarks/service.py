"""The service under test, started and stopped as a user does: ``ray-tracking run``."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ray_tracking.settings import environment

_START_S, _STOP_S = 120, 60
_ASK_S = aiohttp.ClientTimeout(total=5)
_READY, _DATABASE = "Ctrl-C stops it", re.compile(r"psql '([^']+)'")

#: Nothing is limited but by how fast it is; the rest is as users have it.
LIMITS = {
    "max_events_per_window": 1_000_000_000,
    "burst_capacity": 1_000_000_000,
    "deduplication_cache_size": 5_000_000,
}


class Service:
    """
    A service with fresh data, on a port of its own, with servers of its own or as set.

    Args:
        settings: On top of the limits.
        limits: What is set otherwise than users have it.
        data_dir: With data that is there already.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] = LIMITS,
        data_dir: Path | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {**limits, **(settings or {}), "host": "127.0.0.1", "port": self.port}
        self.database_url: str = self.settings.get("database_url", "")
        #: When its process was started, by ``time.perf_counter``.
        self.started_s = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="ray_tracking_bench_")
        self.data_dir = data_dir or Path(self._folder.name) / "data"
        self._log = Path(self._folder.name) / "service.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Service:
        folder = Path(self._folder.name)
        file = folder / "settings.yaml"
        file.write_text(yaml.safe_dump({**self.settings, "data_dir": str(self.data_dir)}))
        program = Path(sys.executable).with_name("ray-tracking")
        self.started_s = time.perf_counter()
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

    async def metrics(self) -> dict[str, float]:
        """``GET /metrics`` by name; empty while there is no answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=_ASK_S) as session,
                session.get(f"{self.url}/metrics") as answer,
            ):
                text = await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return {}
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}

    async def until_waiting(self, events: float, within_s: float, where: Sequence[str]) -> float:
        """
        When no more than so many events waited: a time of ``time.perf_counter``.

        As ``/metrics`` tells it, which is half a second old, for spools up to two.

        Args:
            events: How many may.
            within_s: For how long to look.
            where: ``in_log``, ``spooled``, ``parked`` or ``buffered``, added up.

        Raises:
            SystemExit: It took longer.
        """
        deadline_s = time.perf_counter() + within_s
        while True:
            metrics = await self.metrics()
            names = [f"ray_tracking_{name}_events" for name in where]
            waiting = sum(metrics.get(name, math.inf) for name in names)
            if waiting <= events:
                return time.perf_counter()
            if time.perf_counter() > deadline_s:
                raise SystemExit(f"after {within_s:.0f} s, {waiting:,.0f} events still wait")
            await asyncio.sleep(0.1)

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(_START_S):
            while True:
                if process.returncode is not None:
                    raise SystemExit(f"the service did not start:\n{self._tail()}")
                said = self._log.read_text(errors="replace")
                if _READY in said and await _is_ready(session, self.url):
                    if found := _DATABASE.search(said):
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
