"""
Many clients of ``/ws`` in a process of their own: ``python -m benchmarks.listeners ORDER``.

Each subscribes to some campaigns and notes what it hears and when. One whose connection is lost
comes back with its cursors. The protocol's client side is small enough to be written here, and a
library's would take more of the machine than the service.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.bodies import CAMPAIGNS

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_AGAIN_S = 0.05
_CAMPAIGN = re.compile(rb'"campaignId":"bench-campaign-(\d+)"')
_OPENS = re.compile(rb'"opens":(\d+)')
_CURSOR = re.compile(rb'"cursor":"([^"]*)"}$')


@dataclass(frozen=True)
class Order:
    """
    Who listens.

    Args:
        port: On 127.0.0.1.
        clients: How many connections.
        campaigns: How many each subscribes to.
        campaign_step: From one client's first campaign to the next one's; 0 for the same.
        per_second: How many connections are opened in a second.
        file: Where what they hear goes.
    """

    port: int
    clients: int
    campaigns: int
    campaign_step: int = 1
    per_second: float = 1000
    file: str = ""


class Heard(NamedTuple):
    """One message about a campaign."""

    client: int
    at_s: float
    campaign: int
    opens: int
    #: Of ``subscribed``: whether nothing was missed; None of all others.
    recovered: bool | None
    #: How large it was.
    size_bytes: int


class Listeners:
    """Clients that are connected."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self._process = process
        self._file = file

    async def all_subscribed(self) -> float:
        """Return the time at which every subscription was answered, of now or of a reconnect."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the listeners have ended")
        return float(line)

    def reconnect(self) -> None:
        """Have every client drop its connection, and come back with its cursors."""
        self._process.send_signal(signal.SIGUSR1)

    async def finish(self) -> list[Heard]:
        """Disconnect; what all of them heard, in the order in which they did."""
        self._process.terminate()
        if await self._process.wait() != 0:
            raise SystemExit("the listeners failed")
        lines = self._file.read_text().splitlines()
        return [Heard(*json.loads(line)) for line in lines]


@asynccontextmanager
async def listening(order: Order) -> AsyncIterator[Listeners]:
    """Have clients in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="ray_tracking_listeners_") as folder:
        file = Path(folder) / "heard"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, json.dumps(asdict(replace(order, file=str(file))))),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Listeners(process, file)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class _Client(asyncio.Protocol):
    def __init__(self, crowd: _Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._buffer = bytearray()
        self._open = False
        self.transport: asyncio.Transport | None = None
        step = CAMPAIGNS // max(1, crowd.order.campaigns)
        first = number * crowd.order.campaign_step
        self.cursors: dict[int, str] = {
            (first + step * index) % CAMPAIGNS: "" for index in range(crowd.order.campaigns)
        }
        self.answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self._open = transport, False
        self._buffer.clear()
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._open:
            head, end, rest = bytes(buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(head.decode())
            self._open = True
            self._buffer = buffer = bytearray(rest)
            for campaign, cursor in self.cursors.items():
                asked = {
                    "action": "subscribe_campaign",
                    "campaignId": f"bench-campaign-{campaign:03}",
                }
                self._say(
                    _TEXT, json.dumps(asked | ({"cursor": cursor} if cursor else {})).encode()
                )
        at = 0
        while (frame := _frame(buffer, at)) is not None:
            code, payload, at = frame
            if code == _TEXT:
                self._hear(payload)
            elif code == _PING:
                self._say(_PONG, payload)
            elif code == _CLOSE and self.transport is not None:
                self.transport.close()
        del buffer[:at]

    def _hear(self, payload: bytes) -> None:
        found, opens = _CAMPAIGN.search(payload), _OPENS.search(payload)
        if found is None or opens is None:
            return
        campaign = int(found[1])
        recovered = None
        if payload.startswith(b'{"event":"subscribed"'):
            recovered = b'"recovered":true' in payload
            self.answered.add(campaign)
            self._crowd.one_answered()
        cursor = _CURSOR.search(payload)
        assert cursor is not None
        self.cursors[campaign] = cursor[1].decode()
        self._crowd.note(
            Heard(
                self._number, time.perf_counter(), campaign, int(opens[1]), recovered, len(payload)
            )
        )

    def _say(self, code: int, payload: bytes) -> None:
        # Masked with zeros, as a client may.
        assert self.transport is not None
        size = len(payload)
        head = (
            struct.pack(">BBH", 0x80 | code, 0xFE, size)
            if size > 125
            else bytes((0x80 | code, 0x80 | size))
        )
        self.transport.write(head + bytes(4) + payload)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.answered.clear()
        self._crowd.lost(self)


class _Crowd:
    def __init__(self, order: Order, write: Callable[[str], object]) -> None:
        self.order = order
        self._write = write
        self._clients = [_Client(self, number) for number in range(order.clients)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False
        self.ended = asyncio.Event()

    async def run(self) -> None:
        for client in self._clients:
            self._connect(client)
            await asyncio.sleep(1 / self.order.per_second)
        await self.ended.wait()

    def reconnect(self) -> None:
        self._told = False
        for client in self._clients:
            if client.transport is not None:
                client.transport.abort()

    def lost(self, client: _Client) -> None:
        self._told = False
        if not self.ended.is_set():
            self._connect(client)

    def one_answered(self) -> None:
        if self._told:
            return
        if all(len(client.answered) == self.order.campaigns for client in self._clients):
            self._told = True
            print(time.perf_counter(), flush=True)

    def note(self, heard: Heard) -> None:
        self._write(json.dumps(heard) + "\n")

    def _connect(self, client: _Client) -> None:
        task = asyncio.create_task(self._try(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(self, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        while not self.ended.is_set():
            try:
                await loop.create_connection(lambda: client, "127.0.0.1", self.order.port)
                return
            except OSError:
                await asyncio.sleep(_AGAIN_S)


def _frame(buffer: bytearray, at: int) -> tuple[int, bytes, int] | None:
    """Code, payload and end of the frame at a place, if all of it is there."""
    if len(buffer) < at + 2:
        return None
    code, size, start = buffer[at] & 0x0F, buffer[at + 1], at + 2
    if size == 126:
        if len(buffer) < at + 4:
            return None
        size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
    elif size == 127:
        if len(buffer) < at + 10:
            return None
        size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
    if len(buffer) < start + size:
        return None
    return code, bytes(buffer[start : start + size]), start + size


async def _run(order: Order, write: Callable[[str], object]) -> None:
    crowd = _Crowd(order, write)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, crowd.ended.set)
    loop.add_signal_handler(signal.SIGUSR1, crowd.reconnect)
    # What a callback raises must not be taken for a client that hears nothing.
    loop.set_exception_handler(lambda _, context: sys.exit(str(context)))
    await crowd.run()


def _main(order: Order) -> None:
    with Path(order.file).open("w") as file:
        uvloop.run(_run(order, file.write))


if __name__ == "__main__":
    _main(Order(**json.loads(sys.argv[1])))
