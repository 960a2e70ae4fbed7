"""
The lean load generator: the program ``python -m benchmarks.generator ORDER``.

It says that it is ready, begins when it is sent a line, and ends with what was answered. It
shares the machine with what it measures, so what it takes for a request would be missing
there: it asks the kernel itself which sockets have an answer, and an open loop looks only
every millisecond what is due. What it took is part of the result.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks import bodies
from benchmarks.answers import NO_ANSWER, percentile
from benchmarks.load import Order, Result

#: A run that is not over so long after its time never will be.
_PATIENCE_S = 60.0
#: An open loop that is so far behind does not catch up; the rest is not sent.
_BEHIND_S = 2.0
_TICK_S = 0.001
#: A hit has one of these also when it is not durable yet.
_TAKEN = (200, 202, 302)
_DURABLE = b"\r\nx-tracking-durable: 1\r\n"
_DUPLICATES = b'"duplicates":'


class _Connection:
    """One socket, and the request that it carries."""

    __slots__ = ("buffer", "busy", "left", "since_s", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.left = memoryview(b"")
        self.busy = False
        #: When the request was sent, or was due.
        self.since_s = 0.0

    def answer(self, data: bytes) -> tuple[int, bytes] | None:
        """Status, and all of the answer, once it is complete."""
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            at = data.find(b"content-length: ", 0, end) + 16
            if len(data) >= end + 4 + int(data[at : data.index(b"\r\n", at)]):
                self.buffer = b""
                return int(data[9:12]), data
        self.buffer = data
        return None


class _Load:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.result = Result(next_number=order.first)
        self._maker = bodies.maker(
            order.path,
            batch=order.batch,
            click_every=order.click_every,
            repeat_every=order.repeat_every,
            first=order.first,
            secret=order.secret,
        )
        self._is_hit = order.path == "/pixel"
        events = order.events
        if order.rate is not None:
            events = round(order.rate * order.seconds) * self._maker.events
        step, first = self._maker.events, order.first
        self._ready: Iterator[bytes] = (
            map(self._maker.make, range(first, sys.maxsize, step))
            if events is None
            else iter([self._maker.make(n) for n in range(first, first + events, step)])
        )
        self._latencies_s = array("d")
        self._statuses: Counter[int] = Counter()
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        for _ in range(order.connections):
            self._connect()

    def run(self) -> Result:
        result, order = self.result, self.order
        began_s, cpu_s = time.perf_counter(), time.process_time()
        self._until_s = began_s + order.seconds
        if order.rate is None:
            self._send_idle(began_s)
            while len(self._idle) < len(self._connections):
                self._take_answers(1.0)
                if time.perf_counter() > self._until_s + _PATIENCE_S:
                    raise SystemExit("the service does not answer any more")
        else:
            self._keep_to(order.rate, began_s)
        result.seconds = time.perf_counter() - began_s
        result.generator_percent = 100 * (time.process_time() - cpu_s) / result.seconds
        result.statuses = dict(self._statuses)
        result.requests = self._statuses.total() - self._statuses[NO_ANSWER]
        result.p50_ms, result.p99_ms = (
            percentile(self._latencies_s, share) * 1000 for share in (0.50, 0.99)
        )
        return result

    def _keep_to(self, rate: float, began_s: float) -> None:
        total, sent = round(rate * self.order.seconds), 0
        self.result.offered = total
        while True:
            now_s = time.perf_counter()
            due = min(total, int((now_s - began_s) * rate) + 1)
            while sent < due and self._idle:
                self._send(self._idle.popleft(), began_s + sent / rate)
                sent += 1
            behind = sent < due and now_s - (began_s + sent / rate) > _BEHIND_S
            if behind or (sent == total and len(self._idle) == len(self._connections)):
                break
            if now_s > self._until_s + _BEHIND_S:
                break
            self._take_answers(_TICK_S)

    def _send_idle(self, now_s: float) -> None:
        """Closed loop: the next request of each connection that has none."""
        waiting = [self._idle.popleft() for _ in range(len(self._idle))]
        for connection in waiting:
            if now_s >= self._until_s or not self._send(connection, now_s):
                self._idle.append(connection)

    def _send(self, connection: _Connection, since_s: float) -> bool:
        request = next(self._ready, None)
        if request is None:
            return False
        self.result.next_number += self._maker.events
        self.result.offered += self.order.rate is None
        connection.since_s, connection.busy = since_s, True
        try:
            sent = connection.socket.send(request)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return True
        if sent < len(request):
            connection.left = memoryview(request)[sent:]
            self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
        return True

    def _send_rest(self, connection: _Connection) -> None:
        try:
            connection.left = connection.left[connection.socket.send(connection.left) :]
        except BlockingIOError:
            return
        if not connection.left:
            self._epoll.modify(connection.socket, select.EPOLLIN)

    def _take_answers(self, wait_s: float) -> None:
        closed_loop = self.order.rate is None
        for descriptor, what in self._epoll.poll(wait_s):
            connection = self._connections[descriptor]
            try:
                if what & select.EPOLLOUT:
                    self._send_rest(connection)
                if not what & ~select.EPOLLOUT:
                    continue
                data = connection.socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._lost(connection)
                continue
            answer = connection.answer(data)
            if answer is None:
                continue
            now_s = time.perf_counter()
            self._note(*answer, now_s - connection.since_s)
            connection.busy = False
            if not closed_loop or now_s >= self._until_s or not self._send(connection, now_s):
                self._idle.append(connection)

    def _note(self, status: int, answer: bytes, took_s: float) -> None:
        result = self.result
        self._statuses[status] += 1
        acknowledged = _DURABLE in answer if self._is_hit else status in (200, 202)
        if acknowledged:
            result.acknowledged += 1
            self._latencies_s.append(took_s)
        result.refused += status not in _TAKEN
        if self.order.repeat_every:
            at = answer.index(_DUPLICATES) + len(_DUPLICATES)
            result.duplicates += int(answer[at : answer.index(b",", at)])

    def _connect(self) -> None:
        connection = _Connection(self.order.port)
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        self._idle.append(connection)

    def _lost(self, connection: _Connection) -> None:
        """Closed by the other side: another one takes its place."""
        del self._connections[connection.socket.fileno()]
        self._epoll.unregister(connection.socket)
        connection.socket.close()
        if connection.busy:
            self._statuses[NO_ANSWER] += 1
            self.result.refused += 1
        else:
            self._idle.remove(connection)
        self._connect()
        if self.order.rate is None:
            self._send_idle(time.perf_counter())


def _main(order: Order) -> None:
    load = _Load(order)
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(load.run())))


if __name__ == "__main__":
    _main(Order(**json.loads(sys.argv[1])))
