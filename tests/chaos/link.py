"""A network cable between the service and one of its servers, to be pulled and bent."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK_BYTES = 65536


class Link:
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
        #: Questions and answers get through while these are set.
        self.questions = asyncio.Event()
        self.answers = asyncio.Event()
        #: Each piece is held up for so long, in both directions.
        self.latency_s = 0.0
        self.bytes_per_s = float("inf")
        self.port = 0
        self.questions.set()
        self.answers.set()

    async def start(self) -> None:
        """Accept connections; on the same port as before, if there was one."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.refuse()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- faults ------------------------------------------------------------------

    def refuse(self) -> None:
        """Nobody can connect any more; connections that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def reset(self) -> None:
        """Every connection ends at once, wherever it is."""
        for connection in list(self._connections):
            connection.abort()

    def tear(self) -> None:
        """Every connection ends in the middle of the next question or answer."""
        for connection in self._connections:
            connection.torn = True

    def hold(self) -> None:
        """Nothing gets through any more, and nobody says so."""
        self.questions.clear()
        self.answers.clear()

    def forget(self) -> None:
        """What is connected now stays silent for ever, as if the other machine had vanished."""
        for connection in self._connections:
            connection.dead = True

    async def heal(self) -> None:
        """As a network should be. What was held arrives late; what was forgotten does not."""
        self.latency_s, self.bytes_per_s = 0.0, float("inf")
        self.questions.set()
        self.answers.set()
        for connection in list(self._connections):
            connection.torn = False
        await self.start()

    # -- below -------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server_reader, server_writer = await self._reach()
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, server_writer, self.questions, connection))
                both.create_task(self._pump(server_reader, writer, self.answers, connection))
        except* OSError:
            connection.abort()
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                server_writer.close()
                writer.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_open: asyncio.Event,
        connection: _Connection,
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self.latency_s or self.bytes_per_s != float("inf"):
                await asyncio.sleep(self.latency_s + len(data) / self.bytes_per_s)
            await is_open.wait()
            if connection.dead:
                continue
            if connection.torn:
                writer.write(data[: random.randrange(len(data))])
                await asyncio.sleep(0)
                connection.abort()
                return
            writer.write(data)
            await writer.drain()
        if not connection.dead:
            writer.close()


class _Connection:
    """One client's, and the server's half of it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._both = (client, server)
        self.torn = False
        self.dead = False

    def abort(self) -> None:
        """Reset both halves."""
        for writer in self._both:
            writer.transport.abort()
