"""
Uvicorn's HTTP protocol, with a short way for requests that need no task of their own.

A :class:`HotCycle` stands where uvicorn keeps the cycle of a request and its answer, so that
pipelining, keep-alive and the end of the server go on as uvicorn has them. Whatever is not
plain goes uvicorn's way: a body in chunks or of more than a few KiB, a query, an escape in the
path, a request behind another one, a client that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_tracking.http.asgi import Headers
from ray_tracking.http.connections import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_REQUEST_BYTES,
    ConnectionPolicy,
    Peers,
    Phase,
)
from ray_tracking.http.handover import hand_over
from ray_tracking.http.headers import NOSNIFF
from ray_tracking.http.hot import Hot, run
from ray_tracking.http.live.affinity import Affinity

#: Whose handler takes a request with this method and path, if there is one.
Route = Callable[[str, str], Hot | None]

_LONGEST_BODY_BYTES = 16 * 1024
#: Who was refused may have more to say; what is not read at all would reset the connection before
#: the refusal is read.
_LINGER_S = 1.0
_NO_HTTP = "the request is not valid HTTP"
#: What each answer begins with.
_HEADS = {
    status.value: b"HTTP/1.1 %d %b\r\n%b: %b\r\n" % (status.value, status.phrase.encode(), *NOSNIFF)
    for status in HTTPStatus
}


class _Corked:
    """A transport that sends what is written in one turn of the loop at its end, in one piece."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)

    def write_now(self, data: bytes) -> None:
        if self._parts:
            self._flush()
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def uncork(self) -> asyncio.Transport:
        """The transport itself, with all that was written."""
        self._flush()
        return self._transport

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Rest:
    """Hears of a message whose head its protocol has had, and of all others behind it."""

    def __init__(self, protocol: Protocol) -> None:
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete
        self._protocol = protocol
        self._is_head = True

    def on_message_begin(self) -> None:
        if not self._is_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_head:
            self._protocol.on_headers_complete()
        self._is_head = False


class _Nobody:
    """Waits for no part of a message."""

    def set(self) -> None:
        """Nobody is told."""


_NOBODY = _Nobody()


class HotCycle:
    """
    One request and its answer; what uvicorn's own cycle shows to its protocol.

    Args:
        protocol: Of the connection.
        hot: Who answers.
    """

    message_event = _NOBODY

    def __init__(self, protocol: Protocol, hot: Hot) -> None:
        self._protocol = protocol
        self._hot = hot
        self.body = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    def run(self) -> None:
        """The request is whole."""
        run(self._hot, self._protocol.scope, self.body, self._reply)  # type: ignore[arg-type]

    def _reply(self, status: int, headers: Headers, body: bytes) -> None:
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        protocol = self._protocol
        parts = [_HEADS[status]]
        for name, value in protocol.server_state.default_headers:
            parts.append(b"%b: %b\r\n" % (name, value))
            self.keep_alive = self.keep_alive and name != b"connection"
        parts += [b"%b: %b\r\n" % header for header in headers]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
        protocol.transport.write_now(b"".join(parts))  # type: ignore[attr-defined]
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class _TooLong(Exception):
    """A head that is longer than a head may be."""


class Protocol(HttpToolsProtocol):
    """Of one connection."""

    affinity: Affinity | None = None
    policy = ConnectionPolicy()
    peers: Peers | None = None
    #: Requests with one of these are not plain.
    unusual = frozenset({b"transfer-encoding"})

    #: All that has come in; and how much of it before the request that it now comes for.
    _read_bytes = 0
    _began_bytes = 0
    _refused = False
    _entered: str | None = None
    #: What it was last seen in, since when, and what had come in by then.
    _seen: tuple[Phase, Any] = (Phase.IDLE, None)
    _seen_at_s: float | None = None
    _seen_bytes = 0

    @classmethod
    def of(
        cls,
        hot: Route | None,
        affinity: Affinity | None,
        policy: ConnectionPolicy,
        peers: Peers,
        *,
        cors: bool = False,
    ) -> type[Protocol]:
        """
        The protocol of a listener.

        Args:
            hot: Who takes requests that need no task.
            affinity: Says which connections belong to another replica of this node.
            policy: How long clients may take.
            peers: How many connections each has.
            cors: Whether pages of other origins get answers of their own.
        """
        own: dict[str, Any] = {"affinity": affinity, "policy": policy, "peers": peers}
        if cors:
            own["unusual"] = cls.unusual | {b"origin"}
        if hot is not None:
            own["route"] = staticmethod(hot)
        return type("_Protocol", (cls,), own)

    @staticmethod
    def route(method: str, path: str) -> Hot | None:
        """Of a listener's own subclass: its app's."""
        return None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Uvicorn writes the head and the body of an answer one after the other.
        super().connection_made(_Corked(transport))  # type: ignore[arg-type]
        if not self._is_admitted():
            self._refuse(503, "too many connections", (b"retry-after: 1\r\n",))

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, or hand the connection on to the replica that it belongs to."""
        if self._refused:
            return
        if self.affinity is not None and self._is_between_requests():
            port = self.affinity.other_port(data)
            if port is not None:
                self._hand_over(port, data)
                return
        before, scope = self._read_bytes, self.scope
        self._read_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._go_on(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooLong):
                self._refuse(431, str(error.__context__))
            else:
                self._refuse(400, _NO_HTTP)
            return
        if self.scope is not scope:
            self._began_bytes = before
        if self._read_bytes - self._began_bytes > MAX_HEAD_BYTES:
            self._check_length()

    def _should_upgrade(self) -> bool:
        return self.scope["method"] == "GET" and super()._should_upgrade()

    def _go_on(self, data: bytes) -> None:
        """
        Read on behind the head of a request whose upgrade is not made: its body follows, and other
        requests (RFC 9110, 7.8). The parser takes a head with an upgrade for the end.
        """
        self.parser = httptools.HttpRequestParser(_Rest(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        framing = [
            (n, v) for n, v in self.headers if n in (b"content-length", b"transfer-encoding")
        ]
        head = b"".join([b"%b: %b\r\n" % pair for pair in framing])
        self.data_received(b"POST / HTTP/1.1\r\n" + head + b"\r\n" + data)

    def handle_websocket_upgrade(self) -> None:
        """Have the rest done by the protocol of sockets, which counts as the same connection."""
        super().handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        if self._entered is not None:
            protocol.when_lost = self._leave

    def on_headers_complete(self) -> None:
        """Go the short way, or uvicorn's."""
        if len(self.headers) > MAX_HEADERS:
            raise _TooLong(f"more than {MAX_HEADERS} headers")
        if self._read_bytes - self._began_bytes > MAX_HEAD_BYTES:
            self._check_head()
        hot = self._find_hot()
        if hot is None:
            super().on_headers_complete()
        else:
            self.cycle = HotCycle(self, hot)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """Begin to work, where that did not begin with the head."""
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # the body follows
        super().on_message_complete()
        cycle: Any = self.cycle
        if type(cycle) is HotCycle and not cycle.response_complete:
            cycle.run()

    def on_response_complete(self) -> None:
        """
        Read on, and begin with a request that waits.

        Uvicorn would set a timer now that the next request puts off; here :meth:`look` sees
        to clients that have nothing to say.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    # -- clients that take too much ----------------------------------------------

    def look(self, now_s: float) -> None:
        """Called every now and then: give up a client that has had its time."""
        phase, mark = seen = self._phase()
        before, mark_before = self._seen
        # Another scope of the same content is another request.
        same = mark == mark_before if phase is Phase.STUCK else mark is mark_before
        if self._seen_at_s is None or phase is not before or not same:
            self._seen, self._seen_at_s, self._seen_bytes = seen, now_s, self._read_bytes
            return
        came_bytes = self._read_bytes - self._seen_bytes
        if self._refused or not self.policy.is_overdue(phase, now_s - self._seen_at_s, came_bytes):
            return
        if phase in (Phase.HEAD, Phase.BODY):
            self._refuse(408, f"{phase.value} took too long")
        elif phase is Phase.STUCK:
            self.transport.abort()
        else:
            self.transport.close()

    def _phase(self) -> tuple[Phase, Any]:
        """What is being waited for, and by what it is known as the same."""
        scope: Any = self.scope
        cycle: Any = self.cycle
        if scope is not None and "method" not in scope:
            return Phase.HEAD, scope
        if scope is None or cycle is None:
            return Phase.IDLE, scope
        if cycle.more_body and not self.flow.read_paused:
            return Phase.BODY, scope
        if self.flow.write_paused:
            # As long as the client reads, there is another number each time.
            return Phase.STUCK, self.transport.get_write_buffer_size()
        return (Phase.IDLE if cycle.response_complete else Phase.BUSY), scope

    def _is_admitted(self) -> bool:
        if len(self.connections) > self.policy.max_connections:
            return False
        if self.peers is None or self.client is None:
            return True
        if not self.peers.enter(self.client[0]):
            return False
        self._entered = self.client[0]
        return True

    def _leave(self) -> None:
        if self.peers is not None and self._entered is not None:
            self.peers.leave(self._entered)
        self._entered = None

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            raise _TooLong(f"a head of more than {MAX_HEAD_BYTES} bytes")

    def _check_length(self) -> None:
        """Refuse what goes on for ever, while it comes in."""
        phase, _ = self._phase()
        if phase is Phase.HEAD:
            self._refuse(431, f"a head of more than {MAX_HEAD_BYTES} bytes")
        elif phase is Phase.BODY and (
            self._read_bytes - self._began_bytes > MAX_REQUEST_BYTES
            or len(self.headers) > MAX_HEADERS
        ):
            self._refuse(413, f"a request of more than {MAX_REQUEST_BYTES} bytes")

    def _refuse(self, status: int, text: str, more: tuple[bytes, ...] = ()) -> None:
        """Say why, and read no more. Whoever works on the request hears that its client left."""
        self._refused = True
        cycle: Any = self.cycle
        answered = cycle is not None and not cycle.response_complete and self.scope is not None
        begun = answered and getattr(cycle, "response_started", False)
        if cycle is not None and cycle.response_complete and cycle.more_body:
            begun = True  # it was answered before it was whole
        if answered:
            cycle.disconnected = True
            cycle.message_event.set()
        transport: Any = self.transport
        if not begun:
            body = orjson.dumps({"success": False, "error": text})
            transport.write(
                b"".join(
                    [
                        _HEADS[status],
                        b"content-type: application/json\r\n",
                        *more,
                        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body),
                        body,
                    ]
                )
            )
        plain = transport.uncork()
        with contextlib.suppress(OSError, RuntimeError, NotImplementedError):
            plain.write_eof()
        self.loop.call_later(_LINGER_S, plain.abort)

    def _is_between_requests(self) -> bool:
        # What comes after an early answer may still be the body of its request.
        cycle: Any = self.cycle
        return cycle is None or (
            cycle.response_complete and not cycle.more_body and not self.pipeline
        )

    def _hand_over(self, port: int, data: bytes) -> None:
        self._leave()
        self.connections.discard(self)
        self.transport.pause_reading()
        corked: Any = self.transport
        connections: set[Any] = self.connections
        task = self.loop.create_task(hand_over(corked.uncork(), port, data, connections))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _find_hot(self) -> Hot | None:
        url, parser = self.url, self.parser
        cycle: HotCycle | None = self.cycle  # type: ignore[assignment]
        if not url.isascii() or b"?" in url or b"%" in url or self.expect_100_continue:
            return None
        if (cycle is not None and not cycle.response_complete) or self.flow.write_paused:
            return None
        scope = self.scope
        scope["method"] = method = parser.get_method().decode("ascii")
        scope["path"] = path = url.decode("ascii")
        hot = self.route(method, path)
        if hot is None or parser.get_http_version() != "1.1":
            return None
        if parser.should_upgrade() or not parser.should_keep_alive():
            return None
        length = 0
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)  # the parser has seen that it is a number
            elif name in self.unusual:
                return None
        if length > min(hot.limit_bytes, _LONGEST_BODY_BYTES):
            return None
        scope["raw_path"], scope["query_string"] = url, b""
        return hot
