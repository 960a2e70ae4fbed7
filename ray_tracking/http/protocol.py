"""
Uvicorn's HTTP protocol, with a short way for requests that need no task of their own.

A :class:`HotCycle` stands where uvicorn keeps the cycle of a request and its answer, so that
pipelining, keep-alive and the end of the server go on as uvicorn has them. Whatever is not
plain goes uvicorn's way: a body in chunks or of more than a few KiB, a query, an escape in the
path, a request behind another one, a client that does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_tracking.http.asgi import Headers
from ray_tracking.http.handover import hand_over
from ray_tracking.http.hot import Hot, run
from ray_tracking.http.live.affinity import Affinity

#: Whose handler takes a request with this method and path, if there is one.
Route = Callable[[str, str], Hot | None]

_LONGEST_BODY_BYTES = 16 * 1024
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
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
        self._flush()
        self._transport.write(data)

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
        parts = [_STATUS_LINES[status]]
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


class Protocol(HttpToolsProtocol):
    """Of one connection."""

    affinity: Affinity | None = None

    @classmethod
    def of(cls, hot: Route | None, affinity: Affinity | None) -> type[Protocol]:
        """
        The protocol of a listener.

        Args:
            hot: Who takes requests that need no task.
            affinity: Says which connections belong to another replica of this node.
        """
        own: dict[str, Any] = {"affinity": affinity}
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

    def data_received(self, data: bytes) -> None:
        """Read on, or hand the connection on to the replica that it belongs to."""
        if self.affinity is not None and self._is_between_requests():
            port = self.affinity.other_port(data)
            if port is not None:
                self._hand_over(port, data)
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Go the short way, or uvicorn's."""
        hot = self._find_hot()
        if hot is None:
            super().on_headers_complete()
        else:
            self.cycle = HotCycle(self, hot)  # type: ignore[assignment]

    def on_message_complete(self) -> None:
        """Begin to work, where that did not begin with the head."""
        super().on_message_complete()
        cycle: Any = self.cycle
        if type(cycle) is HotCycle and not cycle.response_complete:
            cycle.run()

    def _is_between_requests(self) -> bool:
        # What comes after an early answer may still be the body of its request.
        cycle: Any = self.cycle
        return cycle is None or (
            cycle.response_complete and not cycle.more_body and not self.pipeline
        )

    def _hand_over(self, port: int, data: bytes) -> None:
        self._unset_keepalive_if_required()
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
            elif name == b"transfer-encoding":
                return None
        if length > min(hot.limit_bytes, _LONGEST_BODY_BYTES):
            return None
        scope["raw_path"], scope["query_string"] = url, b""
        return hot
