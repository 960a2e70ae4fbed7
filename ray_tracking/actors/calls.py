"""
Calls from a process of ours to another over a socket of their own.

A call through Ray costs about a millisecond of processor time on both sides together, this
one less than a tenth of it. Ray says where the socket is and what opens it, and notices who
is dead; here go only the calls that carry events.

A frame has a length, the number of its call, a code and a payload. Each call gets one answer;
answers come in any order.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import structlog

from ray_tracking.errors import Unavailable

Method = Callable[[bytes], Awaitable[bytes]]

MAX_FRAME_BYTES = 256 * 1024 * 1024
_TOKEN_BYTES = 32
_HEAD = struct.Struct("<IIB")
#: Codes of an answer; that of a question is the index of its method.
_DONE, _FAILED = 0, 1
#: The number of what is said when the token was right; the calls have the numbers behind it.
_HELLO = 0

log = structlog.get_logger("ray_tracking.calls")


class Endpoint(NamedTuple):
    """Where calls are answered, and what opens the door."""

    host: str
    port: int
    token: bytes


class CallFailed(RuntimeError):
    """The method that was called raised something; the text says what."""


class _Frames(asyncio.Protocol):
    """Cuts what comes in into frames."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # as every stream has

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _HEAD.size:
            size, number, code = _HEAD.unpack_from(buffer, at)
            if size > MAX_FRAME_BYTES:
                self.transport.abort()
                return
            end = at + _HEAD.size + size
            if len(buffer) < end:
                break
            self.frame(number, code, bytes(buffer[at + _HEAD.size : end]))
            at = end
        del buffer[:at]

    def send(self, number: int, code: int, payload: bytes) -> None:
        self.transport.writelines([_HEAD.pack(len(payload), number, code), payload])

    def frame(self, number: int, code: int, payload: bytes) -> None:
        """One has come whole."""
        raise NotImplementedError


def _read_endpoint(file: Path | None, host: str) -> Endpoint | None:
    """What a predecessor wrote; None where it was on another address, or its disk was full."""
    try:
        known_host, port, token = json.loads(file.read_text()) if file else (None, 0, "")
        return Endpoint(host, port, bytes.fromhex(token)) if known_host == host else None
    except (OSError, ValueError):
        return None


def _keep_endpoint(file: Path, endpoint: Endpoint) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps([endpoint.host, endpoint.port, endpoint.token.hex()]))


class CallServer:
    """
    Answers calls.

    Args:
        methods: What can be called, by index.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = methods
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self._server: asyncio.Server | None = None
        self._connections: set[_Called] = set()

    async def start(self, host: str, file: Path | None = None) -> Endpoint:
        """
        Listen on a port of this address: where a predecessor did, if that is free again, so
        that its callers find us without asking anybody.

        Args:
            host: The address.
            file: Where its port and token are kept; None for a new one each time.
        """
        before = _read_endpoint(file, host)
        if before is not None:
            self._token = before.token
        try:
            port = await self._listen(host, before.port if before else 0)
        except OSError:
            port = await self._listen(host, 0)
        endpoint = Endpoint(host, port, self._token)
        if file is not None and endpoint != before:
            _keep_endpoint(file, endpoint)
        return endpoint

    async def _listen(self, host: str, port: int) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port)
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Listen no more, and drop every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    def _connection(self) -> _Called:
        return _Called(self._methods, self._token, self._connections)


class _Called(_Frames):
    def __init__(self, methods: Sequence[Method], token: bytes, open_: set[_Called]) -> None:
        super().__init__()
        self._open = open_
        self._methods = methods
        self._token = token
        self._known = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        if not self._known:
            self._buffer += data
            if len(self._buffer) < _TOKEN_BYTES:
                return
            if not hmac.compare_digest(bytes(self._buffer[:_TOKEN_BYTES]), self._token):
                self.transport.abort()
                return
            self._known = True
            del self._buffer[:_TOKEN_BYTES]
            data = b""
            self.send(_HELLO, _DONE, b"")
        super().data_received(data)

    def frame(self, number: int, code: int, payload: bytes) -> None:
        task = asyncio.create_task(self._answer(number, code, payload))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, code: int, payload: bytes) -> None:
        try:
            done, answer = _DONE, await self._methods[code](payload)
        except Exception as error:
            log.exception("call failed")
            done, answer = _FAILED, repr(error).encode()
        if not self.transport.is_closing():  # the caller may have given up
            self.send(number, done, answer)


class CallClient(_Frames):
    """Calls the methods of one server. Made by :meth:`connect`."""

    def __init__(self) -> None:
        super().__init__()
        self._next_number = _HELLO
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self.lost = False

    @classmethod
    async def connect(cls, endpoint: Endpoint) -> CallClient:
        """
        Open a connection, and hear that the right one is there and awake.

        Raises:
            Unavailable: If nobody is there.
        """
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(cls, endpoint.host, endpoint.port)
        except OSError as error:
            raise Unavailable(f"no connection to {endpoint.host}:{endpoint.port}") from error
        hello = client._expect()
        client.transport.write(endpoint.token)
        await client._answer(_HELLO, hello)
        return client

    async def call(self, method: int, payload: bytes) -> bytes:
        """
        Call a method. Whoever does not wait for the answer gives up the connection, because
        the other side may be gone without a word.

        Raises:
            Unavailable: The connection was lost. Whether the call arrived is open.
            CallFailed: The method raised something.
        """
        if self.lost:
            raise Unavailable("the connection was lost")
        number = self._next_number
        answer = self._expect()
        self.send(number, method, payload)
        return await self._answer(number, answer)

    def _expect(self) -> asyncio.Future[bytes]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[self._next_number] = answer
        self._next_number = (self._next_number + 1) & 0xFFFF_FFFF
        return answer

    async def _answer(self, number: int, answer: asyncio.Future[bytes]) -> bytes:
        try:
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Drop the connection; every call under way is lost."""
        self.lost = True
        self.transport.abort()

    def frame(self, number: int, code: int, payload: bytes) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if code == _DONE:
            answer.set_result(payload)
        else:
            answer.set_exception(CallFailed(payload.decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Unavailable("the connection was lost"))
