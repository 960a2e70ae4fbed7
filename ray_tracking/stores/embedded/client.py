"""
The application's side of the embedded servers.

:meth:`EmbeddedServers.start` finds the guard of a data directory, or starts one, and
holds a connection to it: as long as that is open, the servers run. The URLs stay the
same when a server dies and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray_tracking
from ray_tracking.errors import StartError
from ray_tracking.stores.embedded.paths import (
    PROTOCOL_VERSION,
    control_socket,
    one_line,
    postgres_binaries,
    tail,
    valkey_binary,
)

_PAUSE_S = 0.05


@dataclass(frozen=True)
class ServerUrls:
    """Where the servers are. None for one that was not asked for."""

    database_url: str | None
    redis_url: str | None


class EmbeddedServers:
    """
    A lease on the embedded servers of one data directory.

    Get one from :meth:`start`. It belongs to the event loop that it was made in.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        urls: ServerUrls,
        pids: dict[str, int],
    ) -> None:
        self.urls = urls
        #: The guard's process id, and the servers' as they were at the start.
        self.pids = pids
        self._writer = writer
        self._watch = asyncio.create_task(self._outlive(reader))

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        postgres: bool,
        valkey: bool,
        grace_s: float = 10.0,
        timeout_s: float = 60.0,
        namespace: bool = True,
        buffers_mib: int | None = None,
    ) -> EmbeddedServers:
        """
        Start the servers, or join them where they run already. They are ready on return.

        A guard that runs another choice of servers is stopped first.

        Args:
            data_dir: Everything is in here; made if it is missing.
            postgres: Whether to run Postgres.
            valkey: Whether to run Valkey.
            grace_s: How long the servers go on without a lease.
            timeout_s: How long the start may take, crash recovery included.
            namespace: False forbids a user namespace to a start as root.
            buffers_mib: How many of its pages Postgres holds in memory, if this starts it.

        Raises:
            StartError: They could not be started; one line says why.
        """
        data_dir, options = _guard_options(data_dir, postgres, valkey, grace_s, namespace)
        if buffers_mib is not None:
            options.append(f"--postgres-buffers-mib={buffers_mib}")
        wanted = {name for name, run in (("postgres", postgres), ("valkey", valkey)) if run}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    lease = await cls._join(data_dir, wanted)
                    if lease is not None:
                        return lease
                    if await asyncio.to_thread(_locked, data_dir):
                        await asyncio.sleep(_PAUSE_S)
                    else:
                        await asyncio.to_thread(_start_guard, options, timeout_s)
        except TimeoutError:
            raise StartError(
                f"the servers in {data_dir} were not ready within {timeout_s:g} s: "
                f"{tail(data_dir / 'guard.log', lines=2)}"
            ) from None
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"cannot start the servers in {data_dir}: {error}") from error

    @classmethod
    async def _join(cls, data_dir: Path, wanted: set[str]) -> EmbeddedServers | None:
        """Take a lease from the running guard; None if there is none, or it is just ending."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(control_socket(data_dir)))
        except (FileNotFoundError, ConnectionError):
            return None
        lease: EmbeddedServers | None = None
        try:
            hello = await _message(reader)
            if hello is None:
                return None
            if hello.get("version") != PROTOCOL_VERSION:
                raise StartError(
                    f"{data_dir} is held by another release's servers (guard process "
                    f"{hello.get('pid')}): stop that application first"
                )
            if set(hello["servers"]) != wanted:
                writer.write(b"stop\n")
                await _read_to_end(reader)
                return None
            state = await _message(reader)
            if state is None or "stopped" in state:
                return None
            if "error" in state:
                raise StartError(state["error"])
            lease = cls(
                reader,
                writer,
                ServerUrls(state["database_url"], state["redis_url"]),
                {"guard": hello["pid"], **state["pids"]},
            )
            return lease
        finally:
            if lease is None:
                writer.close()

    async def closed(self) -> None:
        """Return when the guard is gone, and with it the lease: start again if needed."""
        await asyncio.wait([self._watch])

    async def stop(self) -> None:
        """Stop the servers, whoever else uses them; return when they and the guard have ended."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(b"stop\n")
            await self._writer.drain()
        await self.closed()
        await self.release()

    async def release(self) -> None:
        """Give up the lease. The servers end when nobody has taken another within the grace."""
        self._watch.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _outlive(self, reader: asyncio.StreamReader) -> None:
        await _read_to_end(reader)
        self._writer.close()


async def _message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the guard is gone."""
    try:
        line = await reader.readline()
    except ConnectionError:
        return None
    return json.loads(line) if line.endswith(b"\n") else None


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    while await _message(reader) is not None:
        pass


def _guard_options(
    data_dir: Path, postgres: bool, valkey: bool, grace_s: float, namespace: bool
) -> tuple[Path, list[str]]:
    # The guard starts in another directory.
    data_dir = data_dir.absolute()
    options = [f"--data-dir={data_dir}", f"--grace={grace_s}"]
    if postgres:
        options.append(f"--postgres={postgres_binaries()}")
    if valkey:
        options.append(f"--valkey={valkey_binary()}")
    if not namespace:
        options.append("--no-namespace")
    return data_dir, options


def _locked(data_dir: Path) -> bool:
    """Whether a guard holds the directory: one that just starts, or just ends."""
    try:
        with (data_dir / "guard.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _start_guard(options: list[str], timeout_s: float) -> None:
    """Start a guard; return when it listens, or has found that another one was faster."""
    root = Path(ray_tracking.__file__).parent.parent
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "ray_tracking.stores.embedded.guard"),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        # Not the application's: Ray's variables would make the guard look like a part of it.
        env={"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(root)},
        start_new_session=True,
        timeout=timeout_s,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    try:
        report = json.loads(said)
    except ValueError:
        raise StartError(f"the servers' guard did not start: {one_line(said)}") from None
    if "error" in report:
        raise StartError(report["error"])
