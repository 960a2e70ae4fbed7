"""
The load generator: as many requests as are answered, over connections that stay open.

It runs in a process of its own, ``python -m benchmarks.load ORDER``.

Closed loop: a connection sends its next request when it has its answer, so the latencies
are those of a service that is asked as fast as it answers, not of a user's request. For
the other kind see :mod:`benchmarks.steady`.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field

import uvloop

from benchmarks.answers import percentile
from benchmarks.bodies import Requests
from benchmarks.wire import Wire

#: A run that is not over so long after its time never will be.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Order:
    """
    What to send.

    Args:
        port: On 127.0.0.1.
        path: The route.
        batch: Events in a request; None for one event, not in a list.
        connections: How many are asked at once.
        seconds: Nothing is sent after so long, unless ``events`` says how much.
        first: Number of the first event.
        events: How many; their requests are made before the clock starts.
    """

    port: int
    path: str
    batch: int | None
    connections: int
    seconds: float
    first: int
    events: int | None = None


@dataclass
class Result:
    """What was answered. ``seconds`` is from the first byte sent to the last answer."""

    seconds: float = 0.0
    requests: int = 0
    next_number: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    #: Of acknowledged requests.
    p50_ms: float = math.nan
    p99_ms: float = math.nan

    @property
    def acknowledged(self) -> int:
        """Requests that were answered with a 2xx."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)


class _Connection(Wire):
    def __init__(self, load: _Load) -> None:
        super().__init__()
        self._load = load
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send()

    def _send(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._load.left()
            self.transport.close()
            return
        self._sent_s = self._load.clock()
        self.transport.write(request)

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        self._load.answered(status, self._load.clock() - self._sent_s)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(error)


class _Load:
    def __init__(self, order: Order) -> None:
        # uvloop's own clock has a resolution of a millisecond.
        self.clock = time.perf_counter
        self.order = order
        self.requests = Requests(order.path, order.batch)
        self.result = Result(next_number=order.first)
        self.latencies_s = array("d")
        self.ready: list[bytes] = []
        self.open = order.connections
        self.closed = 0
        self.done = asyncio.get_running_loop().create_future()
        if order.events is not None:
            step = self.requests.events
            numbers = range(order.first, order.first + order.events, step)
            self.ready = [self.requests.make(number) for number in reversed(numbers)]
        self.until_s = self.clock() + order.seconds if order.events is None else math.inf

    def next_request(self) -> bytes | None:
        if self.order.events is not None:
            request = self.ready.pop() if self.ready else None
        elif self.clock() < self.until_s:
            request = self.requests.make(self.result.next_number)
        else:
            request = None
        if request is not None:
            self.result.next_number += self.requests.events
        return request

    def answered(self, status: int, took_s: float) -> None:
        statuses = self.result.statuses
        statuses[status] = statuses.get(status, 0) + 1
        if 200 <= status < 300:
            self.latencies_s.append(took_s)

    def left(self) -> None:
        """A connection has nothing more to send."""
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def lost(self, error: Exception | None) -> None:
        """A connection is closed: by ourselves, once nobody has anything to send."""
        self.closed += 1
        if self.closed > self.order.connections - self.open and not self.done.done():
            reason = error or ConnectionError("the service closed a connection")
            self.done.set_exception(reason)


async def _run(order: Order) -> Result:
    load = _Load(order)
    loop = asyncio.get_running_loop()
    started_s = load.clock()
    for _ in range(order.connections):
        await loop.create_connection(lambda: _Connection(load), "127.0.0.1", order.port)
    async with asyncio.timeout(_PATIENCE_S + order.seconds):
        await load.done
    result = load.result
    result.seconds = load.clock() - started_s
    result.requests = sum(result.statuses.values())
    result.p50_ms, result.p99_ms = (
        percentile(load.latencies_s, share) * 1000 for share in (0.50, 0.99)
    )
    return result


async def send(order: Order) -> Result:
    """Have an order carried out by a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, json.dumps(asdict(order)), stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await process.communicate()
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise SystemExit("the load generator failed")
    found = json.loads(said)
    statuses = {int(status): count for status, count in found.pop("statuses").items()}
    return Result(**found, statuses=statuses)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_run(Order(**json.loads(sys.argv[1])))))))
