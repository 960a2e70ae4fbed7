"""An HTTP connection as raw bytes, because an HTTP client costs more than the server it asks."""

from __future__ import annotations

import asyncio
from typing import cast


class Wire(asyncio.Protocol):
    """Stays open, and carries one request at a time. What comes back is for a subclass."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        at = data.find(b"content-length: ", 0, end)
        if at < 0:
            at = data[:end].lower().find(b"content-length: ")
        length = int(data[at + 16 : data.index(b"\r\n", at)])
        if len(data) < end + 4 + length:
            self._buffer = data
            return
        self._buffer = b""
        self.answered(int(data[9:12]), data[: end + 2], data[end + 4 :])

    def answered(self, status: int, head: bytes, body: bytes) -> None:
        """The answer has come. Each line of the head ends with CRLF, the last one too."""
        raise NotImplementedError
