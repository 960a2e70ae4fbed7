"""A port that listeners share, and leave without a word to those who are connected."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio

from ray_tracking.http import listener as listener_module
from ray_tracking.http.listener import Listener
from tests.support.waiting import eventually

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once; on ``/slow`` a little later."""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


class Client(threading.Thread):
    """Asks again and again, and counts what comes of it."""

    def __init__(self, port: int, *, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        self.outcomes: Counter[str] = Counter()
        self.stopping = False
        self._keep_alive = keep_alive
        self._connection = http.client.HTTPConnection(HOST, port, timeout=10)

    def run(self) -> None:
        while not self.stopping:
            try:
                self._connection.request("GET", "/")
                answer = self._connection.getresponse()
                answer.read()
                self.outcomes[str(answer.status)] += 1
                if not self._keep_alive:
                    self._connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[repr(error)] += 1
                self._connection.close()
        self._connection.close()


@contextmanager
def asking(*clients: Client) -> Iterator[None]:
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stopping = True
        for client in clients:
            client.join()


async def listen(port: int) -> Listener:
    made = Listener(app, HOST, port)
    await made.start()
    return made


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    yield free_port()


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "one-each"])
async def test_nobody_notices_that_a_listener_is_replaced(port: int, keep_alive: bool) -> None:
    """
    Its successor listens before it goes; whoever is connected to it is answered.

    But for a handshake at the very moment at which the socket closes, about once in a
    hundred times under this load: without care it is more than once each time.
    """
    current = await listen(port)
    clients = [Client(port, keep_alive=keep_alive) for _ in range(4)]
    with asking(*clients):
        for _ in range(10):
            successor = await listen(port)
            await current.stop()
            current = successor
            before = [client.outcomes.total() for client in clients]
            await eventually(
                lambda before=before: all(
                    client.outcomes.total() > count + 3
                    for client, count in zip(clients, before, strict=True)
                )
            )
        for client in clients:
            client.stopping = True
        await asyncio.to_thread(lambda: [client.join() for client in clients])
    await current.stop()
    outcomes = sum((client.outcomes for client in clients), Counter())
    assert outcomes.total() - outcomes["200"] <= (0 if keep_alive else 1), outcomes


async def test_a_request_that_is_running_is_answered(port: int) -> None:
    """And told that its connection ends with it."""
    current = await listen(port)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
    await asyncio.sleep(0.1)

    await current.stop()

    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_an_idle_connection_is_closed_after_a_while(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client may be a proxy that keeps it for ever."""
    monkeypatch.setattr(listener_module, "_IDLE_FOR_S", 0.1)
    current = await listen(port)
    reader, writer = await asyncio.open_connection(HOST, port)

    async with asyncio.timeout(3):
        await current.stop()

    assert await reader.read() == b""
    writer.close()
