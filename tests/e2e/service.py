"""The whole service as a user runs it, in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import asyncpg
import psutil

BIN = Path(sys.executable).parent
START_WITHIN_S = 90
STOP_WITHIN_S = 15
T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Mapping[str, str]


def eventually(ask: Callable[[], T], within_s: float, what: str) -> T:
    """The first true answer; fails when there is none in time."""
    deadline_s = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def tracebacks(service: Service) -> list[str]:
    """Where one begins in what was printed, except those of Serve when its Ray was killed."""
    lines = service.output.read_text().splitlines()
    return [line for line in lines if "Traceback" in line and "(ServeController " not in line]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Service:
    """
    One ``ray-tracking run``, or another command that serves the same.

    Args:
        directory: Where it runs; the data directory is ``data`` below it.
        command: What to run instead.
        settings: Environment variables for it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        command: list[str] | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = command or [str(BIN / "ray-tracking"), "run"]
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.output = directory / "output.log"

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        with self.output.open("wb") as output:
            self._process = self._launch(output)

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}  # noqa: TID251
        return subprocess.Popen(
            self.command,
            cwd=self.directory,
            env={
                **kept,
                "RAY_AUTH_MODE": "disabled",
                "TRACKING_PORT": str(self.port),
                "TRACKING_DATA_DIR": str(self.data_dir),
                **self.settings,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A background job of a script would hand down that Ctrl-C is to be ignored.
            restore_signals=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"ended early:\n{self.output.read_text()}"
            try:
                return self.call("GET", "/readyz").status == 200
            except OSError:
                return False

        eventually(ready, START_WITHIN_S, f"ready\n{self.output.read_text()[-3000:]}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def send_signal(self, number: int, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop as a user does, and return the exit code."""
        if self.process.poll() is None:
            self.send_signal(number)
        return self.process.wait(STOP_WITHIN_S)

    def processes(self) -> list[psutil.Process]:
        """Every process of this service: its own, Ray's, and the embedded servers."""
        found: dict[int, psutil.Process] = {}
        roots = []
        if self.process.poll() is None:
            roots.append(psutil.Process(self.process.pid))
        for process in psutil.process_iter():
            try:
                if str(self.data_dir) in " ".join(process.cmdline()):
                    roots.append(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        for root in roots:
            try:
                for process in [root, *root.children(recursive=True)]:
                    found[process.pid] = process
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def kill_everything(self) -> list[psutil.Process]:
        """``kill -9`` of every process at once; returns what was killed."""
        victims = self.processes()
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(STOP_WITHIN_S)
        return victims

    def actor_pid(self, name: str) -> int:
        """The process of an actor, by what it is called: ``Shard``, ``Writer`` …"""
        return self.actor_pids(name)[0]

    def actor_pids(self, name: str, at_least: int = 1) -> list[int]:
        """Of all that are called so; fails when there are fewer."""
        found = []
        for process in self.processes():
            try:
                title = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if title.startswith(f"ray::{name}"):
                found.append(process.pid)
        assert len(found) >= at_least, f"there is no {name}"
        return found

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path,
            data=data,
            method=method,
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        try:
            with _opener.open(request, timeout=15) as response:
                return _answer(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(), error.headers)

    @property
    def ray_address(self) -> str:
        """Of its Ray, as it says."""

        def find() -> str | None:
            found = re.search(r"^  Ray +(\S+:\d+)$", self.output.read_text(), re.MULTILINE)
            return found and found[1]

        address = eventually(find, START_WITHIN_S, "it says where its Ray is")
        assert address is not None
        return address

    def sql(self, query: str, *args: Any, database: str = "ray_tracking") -> list[Any]:
        async def ask() -> list[Any]:
            async with self._connected(database) as connection:
                return list(await connection.fetch(query, *args))

        return asyncio.run(ask())

    @asynccontextmanager
    async def _connected(self, database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
        host = self.data_dir / "postgres"
        connection = await asyncpg.connect(f"postgresql://postgres@/{database}?host={host}")
        try:
            yield connection
        finally:
            await connection.close()

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody else writes to a table meanwhile."""

        async def hold() -> None:
            async with self._connected("ray_tracking") as connection, connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
                held.set()
                await asyncio.to_thread(done.wait)

        held, done = threading.Event(), threading.Event()
        holding = threading.Thread(target=asyncio.run, args=(hold(),))
        holding.start()
        try:
            assert held.wait(10)
            yield
        finally:
            done.set()
            holding.join()

    @contextmanager
    def shut_database(self) -> Iterator[None]:
        """Postgres lets nobody into the database meanwhile."""
        allow = "ALTER DATABASE ray_tracking ALLOW_CONNECTIONS {}"
        self.sql(allow.format("false"), database="postgres")
        try:
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = 'ray_tracking'",
                database="postgres",
            )
            yield
        finally:
            self.sql(allow.format("true"), database="postgres")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def _answer(status: int, raw: bytes, headers: Any) -> Answer:
    is_json = (headers.get("Content-Type") or "").startswith("application/json")
    return Answer(status, json.loads(raw) if is_json else raw, dict(headers.items()))


def acknowledged(path: Path) -> list[dict[str, Any]]:
    """What a simulation's own memory holds; its last line may be cut off."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def missing_rows(service: Service, path: Path) -> set[tuple[str, ...]]:
    """
    Acknowledged events that are not exactly one row.

    A hit has no id that its client knows, and the same token twice is one event, so
    a hit is there when its mail has a row of its type without an id.
    """
    entries = [entry for entry in acknowledged(path) if entry["durable"]]
    rows = service.sql(
        "SELECT event_type, campaign_id, account_id, lead_id, email_id, link_url, "
        "client_event_id FROM events"
    )
    by_id = Counter(row["client_event_id"] for row in rows)
    hits = {
        (row["event_type"], row["campaign_id"], row["lead_id"], row["email_id"], row["link_url"])
        for row in rows
        if row["client_event_id"] is None
    }
    missing: set[tuple[str, ...]] = set()
    for entry in entries:
        if entry["eventId"] is not None:
            if by_id[entry["eventId"]] != 1:
                missing.add((entry["eventId"],))
            continue
        hit = tuple(
            entry[name] for name in ("eventType", "campaignId", "leadId", "emailId", "linkUrl")
        )
        if hit not in hits:
            missing.add(hit)
    return missing
