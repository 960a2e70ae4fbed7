"""
The other load generator: requests at a steady rate, whatever becomes of them.

It runs in a process of its own, ``python -m benchmarks.steady ORDER``, and writes every
answer into a file.

Open loop: each request goes out when it is due, also while earlier ones have no answer
yet, as those of many users do. So an answer's time counts from when its request was
due, and what the generator itself was late is in it.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from benchmarks import answers
from benchmarks.answers import NO_ANSWER, NOT_SENT, Answer
from benchmarks.bodies import Pixels, Requests
from benchmarks.wire import Wire

#: After the last request, for the answers that are still to come.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Order:
    """
    What to send.

    Args:
        port: On 127.0.0.1.
        rate: Requests per second.
        seconds: For how long; None for until it is told to stop.
        batch: Events in a request; None for one event, not in a list.
        pixel_every: Each so-many-th request is a pixel; None for none.
        secret: The service's encryption key, which makes its pixels.
        first: Number of the first event.
        connections: How many requests may be on their way at once.
        file: Where the answers go.
    """

    port: int
    rate: float
    seconds: float | None = None
    batch: int | None = None
    pixel_every: int | None = None
    secret: str = ""
    first: int = 1
    connections: int = 900
    file: str = ""


class Load:
    """An order that is being carried out."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self._process = process
        self._file = file
        #: When all is over.
        self.answers: list[Answer] = []

    async def finish(self) -> None:
        """Return when the order's time is over and every answer has come."""
        if await self._process.wait() != 0:
            raise SystemExit("the load generator failed")
        self.answers = answers.read(self._file)

    def stop(self) -> None:
        """Send nothing more."""
        self._process.terminate()

    def check(self) -> None:
        """
        Go on only while it runs.

        Raises:
            SystemExit: It does not.
        """
        if self._process.returncode is not None:
            raise SystemExit("the load generator has ended")


@asynccontextmanager
async def load(order: Order) -> AsyncIterator[Load]:
    """Have an order carried out by a process of its own. It sends when this is entered."""
    with tempfile.TemporaryDirectory(prefix="ray_tracking_load_") as folder:
        file = Path(folder) / "answers"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, json.dumps(asdict(replace(order, file=str(file))))),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            yield Load(process, file)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class _Generator:
    def __init__(self, order: Order, write: Callable[[bytes], object]) -> None:
        self.order = order
        self._write = write
        path = "/events" if order.batch is None else "/events/batch"
        self._requests = Requests(path, order.batch)
        self._pixels = Pixels(order.secret) if order.pixel_every else None
        self._sent = 0
        self._next = order.first
        self.idle: deque[_Connection] = deque()
        self.busy: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.stopped = False

    async def run(self) -> None:
        due_s = time.perf_counter()
        end_s = due_s + (math.inf if self.order.seconds is None else self.order.seconds)
        while not self.stopped and due_s < end_s:
            # Also when it is late: answers must be taken in.
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            self._send(due_s)
            due_s += 1 / self.order.rate
        until_s = time.perf_counter() + _PATIENCE_S
        while time.perf_counter() < until_s:
            if not (self.busy or self._opening):
                return
            await asyncio.sleep(0.01)
        for connection in list(self.busy):
            connection.transport.abort()
            connection.connection_lost(None)

    def _send(self, due_s: float) -> None:
        number, order = self._next, self.order
        self._sent += 1
        if self._pixels is not None and self._sent % (order.pixel_every or 1) == 0:
            kind, events, request = "pixel", 1, self._pixels.make(number)
        else:
            kind = "event" if order.batch is None else "batch"
            events, request = self._requests.events, self._requests.make(number)
        self._next += events
        asked = Answer(kind, number, events, due_s, math.inf, NO_ANSWER)
        if self.idle:
            self.idle.popleft().ask(request, asked)
        elif len(self.busy) + len(self._opening) < order.connections:
            task = asyncio.create_task(self._connect(request, asked))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.note(asked._replace(status=NOT_SENT))

    async def _connect(self, request: bytes, asked: Answer) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self.order.port
            )
        except OSError:
            self.note(asked)
        else:
            connection.ask(request, asked)

    def note(self, answer: Answer) -> None:
        self._write(answers.write_line(answer))


class _Connection(Wire):
    def __init__(self, generator: _Generator) -> None:
        super().__init__()
        self._generator = generator
        self._asked: Answer | None = None

    def ask(self, request: bytes, asked: Answer) -> None:
        self._asked = asked
        self._generator.busy.add(self)
        self.transport.write(request)

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        asked, self._asked = self._asked, None
        if asked is None:
            return
        took_s = time.perf_counter() - asked.due_s
        self._generator.note(answers.judge(asked, took_s, status, head, body))
        self._generator.busy.discard(self)
        self._generator.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._generator.busy.discard(self)
        if self._asked is not None:
            self._generator.note(self._asked)
            self._asked = None
        elif self in self._generator.idle:
            self._generator.idle.remove(self)


async def _run(order: Order, write: Callable[[bytes], object]) -> None:
    generator = _Generator(order, write)

    def stop() -> None:
        generator.stopped = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    print("sending", flush=True)
    await generator.run()


def _main(order: Order) -> None:
    with Path(order.file).open("wb") as file:
        uvloop.run(_run(order, file.write))


if __name__ == "__main__":
    _main(Order(**json.loads(sys.argv[1])))
