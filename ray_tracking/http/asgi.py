"""
Plain ASGI for the routes that every event goes through: reading a body, sending an
answer. Starlette's Request, Response and routing are a third of their cost.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import orjson

from ray_tracking.errors import InvalidEvent, PayloadTooLarge, RequestError
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.receive import decompress
from ray_tracking.pipeline.room import Room

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

#: A body is also its values, its events and their rows, all at once.
_BYTES_HELD_FOR_ONE = 8
#: Among the extensions of a request that came from inside the cluster.
INSIDE = "tracking.inside"
JSON_TYPE = (b"content-type", b"application/json")


class Refusal(Exception):
    """Why a request may not pass: a status, a text, and the headers that belong to it."""

    def __init__(self, status: int, text: str, headers: Headers) -> None:
        super().__init__(status, text, headers)
        self.status = status
        self.text = text
        self.headers = headers


def overloaded(wait_s: float = 1.0) -> Refusal:
    """What cannot be taken now; come again after so long."""
    return Refusal(503, answer.OVERLOADED, [(b"retry-after", str(math.ceil(wait_s)).encode())])


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


def headers(scope: Scope, *names: bytes) -> list[str | None]:
    """Several at once, as :func:`header` finds each."""
    found: dict[bytes, bytes] = dict(reversed(scope["headers"]))
    return [found[name].decode("latin-1") if name in found else None for name in names]


def announced_bytes(scope: Scope) -> int | None:
    """How long the body will be, or None if nobody said so."""
    announced = header(scope, b"content-length")
    return int(announced) if announced is not None and announced.isdigit() else None


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """
    Read the whole body.

    Raises:
        PayloadTooLarge: As soon as it is known to be larger than the limit.
        ClientGone: If it never became complete.
    """
    announced = announced_bytes(scope)
    if announced is not None and announced > limit_bytes:
        raise PayloadTooLarge(f"the body has {announced} bytes; the limit is {limit_bytes}")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise PayloadTooLarge(f"the body is larger than {limit_bytes} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def read_decoded(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """
    Read the whole body, and undo its ``Content-Encoding``.

    Raises:
        RequestError: If it is not what the header says, or larger than the limit before or after.
        ClientGone: If it never became complete.
    """
    body = await read_body(scope, receive, limit_bytes)
    return decompress(body, header(scope, b"content-encoding"), limit_bytes)


@contextmanager
def held(room: Room, scope: Scope, limit_bytes: int) -> Iterator[None]:
    """
    Hold the memory that a request will need, for as long as it is worked on.

    Args:
        room: What all requests together may hold.
        scope: Of the request: its length, where that is announced.
        limit_bytes: How long the body may be.

    Raises:
        Refusal: 503, if there is no room now.
    """
    length = announced_bytes(scope)
    size_bytes = limit_bytes if length is None else min(length, limit_bytes)
    size_bytes *= _BYTES_HELD_FOR_ONE
    if not room.take(1, size_bytes):
        raise overloaded()
    try:
        yield
    finally:
        room.leave(1, size_bytes)


async def send_bytes(
    send: Send, status: int, headers: Headers, body: bytes, *, head: bool = False
) -> None:
    """Send one whole response; ``Content-Length`` is added. Of a HEAD the body stays here."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-length", str(len(body)).encode()), *headers],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})


async def send_json(
    send: Send, status: int, value: Any, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a value as JSON."""
    await send_bytes(send, status, [JSON_TYPE, *headers], orjson.dumps(value))


def told(error: InvalidEvent | RequestError | Refusal) -> tuple[int, Headers, Any]:
    """What the client is told of an error: status, headers, JSON value."""
    if isinstance(error, InvalidEvent):
        return error.status, [], answer.invalid(error)
    if isinstance(error, Refusal):
        return error.status, error.headers, {"success": False, "error": error.text}
    return error.status, [], {"success": False, "error": str(error)}


def guarded(handler: Handler) -> Handler:
    """Answer what a handler raises on purpose; a client that went away gets nothing."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await handler(scope, receive, send)
        except (InvalidEvent, RequestError, Refusal) as error:
            status, headers, value = told(error)
            await send_json(send, status, value, headers)
        except ClientGone:
            return

    return guard
