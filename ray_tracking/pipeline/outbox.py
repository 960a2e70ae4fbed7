"""
Messages to subscribers, and what waits for one that takes them slower than they come.

First it is conflated: figures are absolute, so of each campaign the last message is enough. A
subscriber that takes nothing for a while, or has too much waiting even so, is given up.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property

import orjson

from ray_tracking.pipeline.broadcast import Frame

#: From here on it is conflated.
CONFLATE_FROM_BYTES = 256 * 1024
#: More than this is never kept for one subscriber.
MAX_OUTBOX_BYTES = 512 * 1024
#: Nothing was taken for so long: it is given up.
STALLED_AFTER_MS = 10_000
_MESSAGE_BYTES = 200
_TEXT_FRAME = b"\x81"
_SHORT, _MEDIUM = 126, 1 << 16


class Message:
    """
    One message, encoded once for each kind of connection, however many have it.

    Args:
        name: Of the event.
        data: JSON.
        cursor: Of a subscriber that has it.
        topic: What it is about; a later one of the same topic makes it needless. None where
            nothing does.
    """

    def __init__(self, name: str, data: bytes, cursor: str, topic: str | None = None) -> None:
        self.name = name
        self.data = data
        self.cursor = cursor
        self.topic = topic

    @classmethod
    def of(cls, frame: Frame, epoch: int) -> Message:
        """A frame as a message. What is said of the system has a topic for each name."""
        return cls(
            frame.name, frame.data, f"{epoch}-{frame.offset}", frame.topic or f"\0{frame.name}"
        )

    @property
    def size_bytes(self) -> int:
        return len(self.data) + _MESSAGE_BYTES

    @cached_property
    def text(self) -> bytes:
        """As ``/ws`` sends it."""
        return b'{"event":"%b","data":%b,"cursor":"%b"}' % (
            self.name.encode(),
            self.data,
            self.cursor.encode(),
        )

    @cached_property
    def framed(self) -> bytes:
        """The same as a whole text frame of WebSocket, server to client (RFC 6455, 5.2)."""
        size = len(self.text)
        if size < _SHORT:
            head = size.to_bytes(1, "big")
        elif size < _MEDIUM:
            head = b"\x7e" + size.to_bytes(2, "big")
        else:
            head = b"\x7f" + size.to_bytes(8, "big")
        return _TEXT_FRAME + head + self.text

    @cached_property
    def server_sent(self) -> bytes:
        """As a server-sent event."""
        return b"event: %b\nid: %b\ndata: %b\n\n" % (
            self.name.encode(),
            self.cursor.encode(),
            self.data,
        )

    @cached_property
    def socket_io(self) -> str:
        """As an Engine.IO message with a Socket.IO event, whose second value is the cursor."""
        return f'2["{self.name}",{self.data.decode()},"{self.cursor}"]'


def message(name: str, data: object, cursor: str) -> Message:
    """A message of our own, which nothing replaces."""
    return Message(name, orjson.dumps(data), cursor)


class Outbox:
    """The messages that wait for one subscriber, in order."""

    __slots__ = ("_messages", "_since_ms", "conflated", "size_bytes")

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self.size_bytes = 0
        #: Messages that were left out because a later one replaces them.
        self.conflated = 0
        #: When something was taken last, or began to wait.
        self._since_ms = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, waiting: Message, now_ms: int) -> None:
        """Have one more wait; the earlier ones that it makes needless go when it is too much."""
        if not self._messages:
            self._since_ms = now_ms
        self._messages.append(waiting)
        self.size_bytes += waiting.size_bytes
        if self.size_bytes > CONFLATE_FROM_BYTES:
            self._conflate()

    @property
    def first(self) -> Message:
        """The next to be sent."""
        return self._messages[0]

    def take(self, now_ms: int) -> Message:
        """Take the next, because it is sent."""
        self._since_ms = now_ms
        taken = self._messages.popleft()
        self.size_bytes -= taken.size_bytes
        return taken

    def clear(self) -> None:
        """Nobody wants them any more."""
        self._messages.clear()
        self.size_bytes = 0

    def is_hopeless(self, now_ms: int) -> bool:
        """Whether the subscriber is to be given up."""
        if not self._messages:
            return False
        stalled = now_ms - self._since_ms > STALLED_AFTER_MS
        return stalled or self.size_bytes > MAX_OUTBOX_BYTES

    def _conflate(self) -> None:
        kept: deque[Message] = deque()
        seen: set[str] = set()
        for waiting in reversed(self._messages):
            if waiting.topic is None:
                kept.appendleft(waiting)
            elif waiting.topic not in seen:
                seen.add(waiting.topic)
                kept.appendleft(waiting)
        self.conflated += len(self._messages) - len(kept)
        self._messages = kept
        self.size_bytes = sum(waiting.size_bytes for waiting in kept)
