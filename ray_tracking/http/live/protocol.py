"""Uvicorn's WebSocket protocol, with a way for whole frames past ASGI."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ray_tracking.http.live.websocket import FRAMES

#: What a client may say at once.
MAX_MESSAGE_BYTES = 64 * 1024
#: A client that does not take its last frame is cut off after so long.
_CLOSE_WITHIN_S = 5.0
#: Of one that reads slowly, the kernel holds no more than about twice this.
_SEND_BUFFER_BYTES = 128 * 1024


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """ASGI has no word for "not now", and would cost each delivery a coroutine."""

    _call_when_writable: Callable[[], None] | None = None
    #: Called when the connection is lost.
    when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.when_lost is not None:
            self.when_lost()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # it was a handshake
            extensions: Any = self.scope["extensions"]
            extensions[FRAMES] = self

    def write_frame(self, frame: bytes) -> bool:
        """Send a whole frame; False if the connection takes none now."""
        if not self.writable.is_set() or self.close_sent or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    def on_writable(self, call: Callable[[], None]) -> None:
        """What to call when it takes frames again."""
        self._call_when_writable = call

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._call_when_writable is not None:
            self._call_when_writable()

    def give_up(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection whether or not it is taken."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(_CLOSE_WITHIN_S, self.transport.abort)
