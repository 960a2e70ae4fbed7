"""
A network that fails on demand: stands between a client and a real server.

Whether an append or a commit is unclear depends on what was lost, the question or the
answer, so the faults wait for a piece of the conversation (``XADD``, ``COMMIT``) and
strike exactly there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from enum import Enum
from urllib.parse import parse_qs, quote, unquote, urlsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK_BYTES = 65536
_STRIKES_WITHIN_S = 10.0


class Fault(Enum):
    """What happens to a question when it comes by."""

    #: The server gets it and answers; the answer is dropped and the connection cut.
    LOSE_REPLY = "lose the reply"
    #: The connection is cut; the server never gets it.
    LOSE_REQUEST = "lose the request"
    #: The server gets its first bytes, then the connection is cut.
    TEAR_REQUEST = "tear the request"
    #: From then on nothing gets through on this connection, and nobody says so.
    DEAD_CABLE = "let nothing through any more"
    #: It is kept back, and everything after it, until :meth:`Proxy.release`.
    HOLD_REQUEST = "hold the request"


class Proxy:
    """
    Listens on a port of its own and forwards to one server.

    Args:
        reach: Opens a connection to the server.
    """

    def __init__(self, reach: Callable[[], Awaitable[Streams]]) -> None:
        self._reach = reach
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: tuple[bytes, Fault] | None = None
        self._then_refuse = False
        self._released = asyncio.Event()
        self._struck = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        #: How much later each answer comes.
        self.latency_s = 0.0
        self.port = 0

    async def start(self) -> None:
        """Accept connections; on the same port as before, if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections and end those that are there."""
        self.refuse()
        self._flowing.set()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- faults ------------------------------------------------------------------

    def strike(self, needle: bytes, fault: Fault, *, then_refuse: bool = False) -> None:
        """
        Let a fault happen to the next question that holds some bytes.

        Args:
            needle: Which.
            fault: What happens to it.
            then_refuse: Whether the server is out of reach from then on.
        """
        self._fault = (needle, fault)
        self._then_refuse = then_refuse
        self._struck.clear()
        self._released.clear()

    async def struck(self) -> None:
        """Return when the fault that was ordered has happened."""
        async with asyncio.timeout(_STRIKES_WITHIN_S):
            await self._struck.wait()

    def release(self) -> None:
        """Send on what was held."""
        self._released.set()

    def pause(self) -> None:
        """Let nothing through, on new connections either, and tell nobody."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let it through again, with all that has piled up, also of those who went away."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for connection in list(self._connections):
            connection.cut()

    def hang_up(self) -> None:
        """Reset the clients' halves; what was held still gets to the server."""
        for connection in list(self._connections):
            connection.client.transport.abort()

    def refuse(self) -> None:
        """Let nobody connect any more; connections that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Let clients connect again."""
        if self._server is None:
            await self.start()

    # -- below -------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await self._reach()
            connection = _Connection(writer, server_writer)
            self._connections.add(connection)
            try:
                await asyncio.gather(
                    self._questions(reader, server_writer, connection),
                    self._answers(server_reader, writer, connection),
                )
            finally:
                self._connections.discard(connection)
                server_writer.close()
        writer.close()
        self._tasks.discard(task)

    async def _questions(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if connection.is_dead:
                continue
            match self._fault_of(data):
                case Fault.LOSE_REPLY:
                    connection.loses_reply = True
                case Fault.LOSE_REQUEST:
                    self._cut(connection)
                    return
                case Fault.TEAR_REQUEST:
                    server.write(data[: len(data) // 2])
                    await server.drain()
                    self._cut(connection)
                    return
                case Fault.DEAD_CABLE:
                    connection.is_dead = True
                    self._struck.set()
                    continue
                case Fault.HOLD_REQUEST:
                    self._struck.set()
                    await self._released.wait()
            await self._flowing.wait()
            server.write(data)
            await server.drain()
        if not connection.is_dead:
            server.close()

    async def _answers(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if connection.is_dead:
                continue
            if connection.loses_reply:
                self._cut(connection)
                return
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            await self._flowing.wait()
            client.write(data)
            await client.drain()
        if not connection.is_dead:
            client.close()

    def _fault_of(self, data: bytes) -> Fault | None:
        if self._fault is None or self._fault[0] not in data:
            return None
        fault = self._fault[1]
        self._fault = None
        return fault

    def _cut(self, connection: _Connection) -> None:
        if self._then_refuse:
            self.refuse()
        connection.cut()
        self._struck.set()


class _Connection:
    """One client's, and the server's half of it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.loses_reply = False
        self.is_dead = False

    def cut(self) -> None:
        """Reset both halves."""
        self.client.transport.abort()
        self.server.transport.abort()


async def before_valkey(url: str) -> tuple[Proxy, str]:
    """A proxy before the server of a ``unix://`` URL, and the URL of the proxy."""
    path = unquote(url.removeprefix("unix://"))
    proxy = Proxy(lambda: asyncio.open_unix_connection(path))
    await proxy.start()
    return proxy, f"redis://127.0.0.1:{proxy.port}"


async def before_postgres(url: str) -> tuple[Proxy, str]:
    """The same for a Postgres on a Unix socket."""
    parts = urlsplit(url)
    directory = parse_qs(parts.query)["host"][0]
    proxy = Proxy(lambda: asyncio.open_unix_connection(f"{directory}/.s.PGSQL.5432"))
    await proxy.start()
    user = quote(unquote(parts.username or ""))
    return proxy, f"postgresql://{user}@127.0.0.1:{proxy.port}{parts.path}?sslmode=disable"
