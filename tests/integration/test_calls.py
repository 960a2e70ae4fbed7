"""Calls between processes over a socket of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
import uvloop

from ray_tracking.actors.calls import CallClient, CallFailed, CallServer, Endpoint
from ray_tracking.errors import Unavailable

ECHO, WAIT, FAIL = range(3)


class Served:
    """A server, and what it is doing."""

    def __init__(self) -> None:
        self.server = CallServer([self.echo, self.wait, self.fail])
        self.released = asyncio.Event()
        self.waiting = asyncio.Event()
        self.endpoint: Endpoint

    async def echo(self, payload: bytes) -> bytes:
        return payload[::-1]

    async def wait(self, payload: bytes) -> bytes:
        self.waiting.set()
        await self.released.wait()
        return payload

    async def fail(self, payload: bytes) -> bytes:
        raise ValueError("not today")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    made.endpoint = await made.server.start("127.0.0.1")
    yield made
    made.released.set()
    await made.server.close()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[CallClient]:
    made = await CallClient.connect(served.endpoint)
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_a_call_gets_its_answer(client: CallClient, size: int) -> None:
    payload = b"ab"[: size % 2 + 1] * (size // 2) + b"c" * (size % 2)
    assert await client.call(ECHO, payload) == payload[::-1]


async def test_answers_come_in_any_order(client: CallClient, served: Served) -> None:
    slow = asyncio.create_task(client.call(WAIT, b"slow"))
    await served.waiting.wait()
    answers = await asyncio.gather(*[client.call(ECHO, b"%03d" % n) for n in range(100)])
    assert answers == [(b"%03d" % n)[::-1] for n in range(100)]
    served.released.set()
    assert await slow == b"slow"


async def test_what_a_method_raises_is_told(client: CallClient) -> None:
    with pytest.raises(CallFailed, match="not today"):
        await client.call(FAIL, b"")
    assert await client.call(ECHO, b"ab") == b"ba"


async def test_a_server_that_ends_ends_its_calls(client: CallClient, served: Served) -> None:
    under_way = asyncio.create_task(client.call(WAIT, b""))
    await served.waiting.wait()
    await served.server.close()
    with pytest.raises(Unavailable):
        await under_way
    with pytest.raises(Unavailable):
        await client.call(ECHO, b"")
    with pytest.raises(Unavailable):
        await CallClient.connect(served.endpoint)


async def test_who_gives_up_gives_up_the_connection(client: CallClient, served: Served) -> None:
    other = asyncio.create_task(client.call(WAIT, b""))
    await served.waiting.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.call(WAIT, b"")
    with pytest.raises(Unavailable):
        await other
    assert client.lost


async def test_an_answer_that_nobody_waits_for_hurts_nobody(served: Served) -> None:
    """The server goes on, and says nothing of it."""
    gone = await CallClient.connect(served.endpoint)
    under_way = asyncio.create_task(gone.call(WAIT, b""))
    await served.waiting.wait()
    gone.close()
    with pytest.raises(Unavailable):
        await under_way
    served.released.set()
    client = await CallClient.connect(served.endpoint)
    with structlog.testing.capture_logs() as logs:
        assert await client.call(ECHO, b"ab") == b"ba"
    client.close()
    assert logs == []


@pytest.mark.parametrize("token", [b"", b"x" * 31, b"x" * 32, b"GET / HTTP/1.1\r\n\r\n" * 4])
async def test_without_the_token_nothing_is_called(served: Served, token: bytes) -> None:
    reader, writer = await asyncio.open_connection(served.endpoint.host, served.endpoint.port)
    writer.write(token + struct.pack("<IIB", 0, 1, WAIT))
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    assert not served.waiting.is_set()
    writer.close()


async def test_a_frame_that_is_too_large_ends_the_connection(served: Served) -> None:
    reader, writer = await asyncio.open_connection(served.endpoint.host, served.endpoint.port)
    writer.write(served.endpoint.token + struct.pack("<IIB", 0xFFFF_FFFF, 1, ECHO))
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == struct.pack("<IIB", 0, 0, 0)  # hello, and no more
    writer.close()


def test_it_is_the_same_on_the_loop_of_ray() -> None:
    async def go() -> bytes:
        served = Served()
        client = await CallClient.connect(await served.server.start("127.0.0.1"))
        try:
            return await client.call(ECHO, b"ab")
        finally:
            client.close()
            await served.server.close()

    assert uvloop.run(go()) == b"ba"


async def test_a_successor_listens_where_its_predecessor_did(tmp_path: Path) -> None:
    """Its callers find it there without asking anybody."""
    file = tmp_path / "calls" / "shard-0"
    first, second = Served(), Served()
    endpoint = await first.server.start("127.0.0.1", file)
    await first.server.close()

    assert await second.server.start("127.0.0.1", file) == endpoint
    client = await CallClient.connect(endpoint)
    assert await client.call(ECHO, b"ab") == b"ba"
    client.close()
    await second.server.close()
    assert file.stat().st_mode & 0o077 == 0


async def test_where_a_predecessor_still_listens_a_successor_takes_another_port(
    tmp_path: Path,
) -> None:
    file = tmp_path / "shard-0"
    servers = [Served().server for _ in range(3)]
    first, second = [await server.start("127.0.0.1", file) for server in servers[:2]]
    assert first.port != second.port
    await servers[1].close()
    assert await servers[2].start("127.0.0.1", file) == second
    for server in servers:
        await server.close()


@pytest.mark.parametrize("text", ["", "[]", '["127.0.0.1", 1, "zz"]', '["127.0.0.9", 1, "00"]'])
async def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path, text: str) -> None:
    file = tmp_path / "shard-0"
    file.write_text(text)
    served = Served()
    endpoint = await served.server.start("127.0.0.1", file)
    client = await CallClient.connect(endpoint)
    client.close()
    await served.server.close()
    assert str(endpoint.port) in file.read_text()


async def test_somebody_else_on_that_port_is_not_taken_for_it() -> None:
    """Who does not say hello is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await CallClient.connect(Endpoint(*silent.getsockname(), b"x" * 32))
