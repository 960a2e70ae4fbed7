"""Clients that take too much, by raw sockets: refused, while others are answered as always."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from ray_tracking.http import listener as listener_module
from ray_tracking.http import protocol as protocol_module
from ray_tracking.http.connections import ConnectionPolicy
from ray_tracking.http.hot import Hot
from ray_tracking.http.listener import Listener
from tests.integration.test_listener import HOST, free_port
from tests.support.waiting import eventually

POLICY = ConnectionPolicy(
    max_connections=20,
    max_per_client=12,
    idle_s=0.6,
    head_s=0.3,
    body_s=0.3,
    body_bytes_per_s=1000,
    stuck_s=0.3,
)
HEALTHY = b"GET /hot HTTP/1.1\r\nhost: t\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all there is, and says how it went; ``/large`` answers more than anybody buffers."""
    seen.append(scope["path"])
    while (message := await receive())["type"] == "http.request":
        if not message.get("more_body"):
            break
    else:
        gone.append(scope["path"])
        return
    body = bytes(32 * 1024 * 1024) if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


seen: list[str] = []
gone: list[str] = []


def hot(method: str, path: str) -> Hot | None:
    def answer(scope: Any, body: bytes, reply: Any) -> None:
        reply(200, [], b"ok")

    return Hot(answer, 1024) if path == "/hot" else None


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self, within_s: float = 5.0) -> tuple[int, bytes]:
        """The status, and the body."""
        async with asyncio.timeout(within_s):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head.split()[1]), await self._reader.readexactly(length)

    async def refusal(self) -> int:
        """The status of a refusal, which is told as every other and ends the connection."""
        status, body = await self.answer()
        assert json.loads(body)["success"] is False
        assert await self.is_closed()
        return status

    async def is_closed(self) -> bool:
        async with asyncio.timeout(5):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    async def drip(self, data: Callable[[int], bytes], every_s: float = 0.05) -> None:
        """Send a little at a time until nobody takes it."""
        number = 0
        while not self._reader.at_eof() and not self._writer.transport.is_closing():
            self._writer.write(data(number))
            number += 1
            await asyncio.sleep(every_s)

    async def close(self) -> None:
        self._writer.close()


class Port:
    def __init__(self) -> None:
        self.number = free_port()
        self.clients: list[Client] = []
        self.listener = Listener(
            app, HOST, self.number, hot, policy=POLICY, is_exempt=lambda address: False
        )

    @property
    def connections(self) -> int:
        """What it costs us."""
        return len(self.listener._server.server_state.connections)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection(HOST, self.number))
        self.clients.append(client)
        return client

    async def is_healthy(self) -> bool:
        """Is somebody else answered meanwhile, at once?"""
        client = await self.connect()
        client.send(HEALTHY)
        answered = await client.answer(1.0) == (200, b"ok")
        await client.close()
        return answered


@pytest_asyncio.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    monkeypatch.setattr(listener_module, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(listener_module, "_IDLE_FOR_S", 0.1)
    monkeypatch.setattr(protocol_module, "_LINGER_S", 0.2)
    monkeypatch.setattr(protocol_module, "MAX_REQUEST_BYTES", 300_000)
    seen.clear()
    gone.clear()
    port = Port()
    await port.listener.start()
    yield port
    for client in port.clients:
        await client.close()
    await port.listener.stop()


@pytest.mark.parametrize("first", [b"GET /", b"GET /hot HTTP/1.1\r\nx: "])
async def test_a_head_that_comes_byte_by_byte_is_given_up(port: Port, first: bytes) -> None:
    slow = await port.connect()
    slow.send(first)
    dripping = asyncio.create_task(slow.drip(lambda n: b"x"))
    assert await port.is_healthy()

    assert await slow.refusal() == 408
    dripping.cancel()
    assert await port.is_healthy()


async def test_a_body_that_comes_byte_by_byte_is_given_up(port: Port) -> None:
    """And whoever waits for it hears that its client has gone."""
    for path in ("/hot", "/slow"):
        slow = await port.connect()
        slow.send(b"POST %b HTTP/1.1\r\nhost: t\r\ncontent-length: 500\r\n\r\n" % path.encode())
        dripping = asyncio.create_task(slow.drip(lambda n: b"x"))
        assert await port.is_healthy()

        assert await slow.refusal() == 408
        dripping.cancel()
    await eventually(lambda: gone == ["/slow"])


async def test_a_body_may_take_long_where_it_keeps_coming(port: Port) -> None:
    client = await port.connect()
    client.send(b"POST /slow HTTP/1.1\r\nhost: t\r\ncontent-length: 2000\r\n\r\n")
    began_s = time.monotonic()
    for _ in range(20):
        client.send(bytes(100))
        await asyncio.sleep(0.05)

    assert time.monotonic() - began_s > 2 * POLICY.body_s
    assert await client.answer() == (200, b"ok")


async def test_too_many_headers_are_refused(port: Port) -> None:
    for path in (b"/hot", b"/slow"):
        client = await port.connect()
        client.send(b"GET %b HTTP/1.1\r\nhost: t\r\n" % path)
        client.send(b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n")

        assert await client.refusal() == 431
    assert seen == []
    assert await port.is_healthy()


@pytest.mark.parametrize("flood", [b"x: y\r\n", b"y" * 1000])
async def test_a_head_without_end_is_cut_off_while_it_comes(port: Port, flood: bytes) -> None:
    """Of many headers, or of one."""
    client = await port.connect()
    client.send(b"GET /hot HTTP/1.1\r\nx: ")
    dripping = asyncio.create_task(client.drip(lambda n: flood * 20, 0.0))

    assert await client.refusal() == 431
    dripping.cancel()
    assert await port.is_healthy()


async def test_a_large_head_in_one_piece_is_refused(port: Port) -> None:
    client = await port.connect()
    client.send(b"GET /hot HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n")

    assert await client.refusal() == 431


async def test_a_body_without_end_is_cut_off(port: Port) -> None:
    client = await port.connect()
    client.send(b"POST /slow HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"2710\r\n" + bytes(10_000) + b"\r\n"
    dripping = asyncio.create_task(client.drip(lambda n: chunk, 0.0))

    assert await client.refusal() == 413
    dripping.cancel()
    await eventually(lambda: gone == ["/slow"])


async def test_trailers_without_end_are_cut_off(port: Port) -> None:
    client = await port.connect()
    client.send(b"POST /slow HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    dripping = asyncio.create_task(client.drip(lambda n: b"x: y\r\n" * 1000, 0.0))

    assert await client.refusal() == 413
    dripping.cancel()


async def test_what_is_no_http_is_told_so(port: Port) -> None:
    client = await port.connect()
    client.send(b"\x16\x03\x01\x02\x00\x01\x00")

    assert await client.refusal() == 400


async def test_a_connection_without_requests_is_closed(port: Port) -> None:
    silent, answered, between = [await port.connect() for _ in range(3)]
    for client in (answered, between):
        client.send(HEALTHY)
        await client.answer()
    between.send(b"\r\n")  # which is no request

    for client in (silent, answered, between):
        assert await client.is_closed()


async def test_a_connection_in_use_lives_on(port: Port) -> None:
    client = await port.connect()
    until_s = time.monotonic() + 3 * POLICY.idle_s
    while time.monotonic() < until_s:
        client.send(HEALTHY)
        assert await client.answer() == (200, b"ok")
        await asyncio.sleep(0.1)


async def test_a_client_that_does_not_read_is_cut_off(port: Port) -> None:
    with socket.create_connection((HOST, port.number)) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nhost: t\r\n\r\n")
        await eventually(lambda: seen == ["/large"])
        await eventually(lambda: port.connections)
        await eventually(lambda: not port.connections)

    assert await port.is_healthy()


async def test_one_client_has_only_so_many_connections(port: Port) -> None:
    clients = [await port.connect() for _ in range(POLICY.max_per_client)]
    for client in clients:
        client.send(HEALTHY)
        assert (await client.answer())[0] == 200

    one_more = await port.connect()
    one_more.send(HEALTHY)
    assert await one_more.refusal() == 503

    await clients[0].close()
    await eventually(port.is_healthy)


async def test_all_together_have_only_so_many(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_tracking.http.connections.Peers.enter", lambda self, address: True)
    clients = [await port.connect() for _ in range(POLICY.max_connections)]
    for client in clients:
        client.send(HEALTHY)
        assert (await client.answer())[0] == 200

    one_more = await port.connect()
    one_more.send(HEALTHY)
    assert await one_more.refusal() == 503
