"""
A connection that belongs to another replica of this node, and is handed on to it.

What has come in goes to the replica's own port on loopback, and everything after it both ways,
unread, for as long as the connection lives: a connection that is kept alive stays with the
session that it was opened for.
"""

from __future__ import annotations

import asyncio

_UNKNOWN = b'{"code":1,"message":"Session ID unknown"}'
#: What Engine.IO says of a session that is not there: the client begins a new one.
_GONE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_UNKNOWN), _UNKNOWN)
)


class _End(asyncio.Protocol):
    """One end of the way; writes to the other as fast as that takes it."""

    def __init__(self, connections: set[asyncio.Protocol]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def shutdown(self) -> None:
        """As the listener ends its connections."""
        if self.transport is not None:
            self.transport.close()


async def hand_over(
    transport: asyncio.Transport, port: int, received: bytes, connections: set[asyncio.Protocol]
) -> None:
    """
    Hand a connection on.

    Args:
        transport: Of the client, not being read.
        port: Of the replica on loopback.
        received: What has come in already.
        connections: Those that the listener ends.
    """
    client = _End(connections)
    client.connection_made(transport)
    transport.set_protocol(client)
    loop = asyncio.get_running_loop()
    try:
        _, owner = await loop.create_connection(lambda: _End(connections), "127.0.0.1", port)
    except OSError:
        # The replica has gone, and its sessions with it.
        transport.write(_GONE)
        transport.close()
        return
    if transport.is_closing():
        owner.shutdown()
        return
    client.other, owner.other = owner, client
    assert owner.transport is not None
    owner.transport.write(received)
    transport.resume_reading()
