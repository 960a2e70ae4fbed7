"""
Handlers that need no task of their own: single events, pixels and clicks.

Such a handler gets a request whole, does all that it can at once, and leaves a function behind
that is called when the event's fate is known. The listener calls it as soon as the last byte is
there (:mod:`ray_tracking.http.protocol`); :func:`asgi` makes the same handler part of an ASGI
app, for requests that come in pieces or through another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

import orjson
import structlog

from ray_tracking.errors import InvalidEvent, RequestError
from ray_tracking.http.asgi import (
    JSON_TYPE,
    Handler,
    Headers,
    Receive,
    Refusal,
    Scope,
    Send,
    guarded,
    read_body,
    send_bytes,
    told,
)

#: Gets an answer: status, headers without a length, body.
Reply = Callable[[int, Headers, bytes], None]

log = structlog.get_logger("ray_tracking.http")


class Handle(Protocol):
    """Takes a request and answers it, now or later, once."""

    def __call__(self, scope: Scope, body: bytes, reply: Reply) -> None: ...


class Hot(NamedTuple):
    """
    A handler, and what is asked before the body is read.

    Args:
        handle: May raise what an ASGI handler may.
        limit_bytes: How long the body may be.
        check: Raises if the request may not pass.
    """

    handle: Handle
    limit_bytes: int = 0
    check: Callable[[Scope], None] | None = None


def run(hot: Hot, scope: Scope, body: bytes, reply: Reply) -> None:
    """Have a whole request answered, also where the handler raises something."""
    try:
        if hot.check is not None:
            hot.check(scope)
        hot.handle(scope, body, reply)
    except (InvalidEvent, RequestError, Refusal) as error:
        status, headers, value = told(error)
        reply(status, [JSON_TYPE, *headers], orjson.dumps(value))
    except Exception:
        log.exception("request failed", path="/" + scope["path"].split("/", 2)[1])
        reply(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")


def asgi(hot: Hot) -> Handler:
    """The same as an ASGI handler."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if hot.check is not None:
            hot.check(scope)
        body = await read_body(scope, receive, hot.limit_bytes) if hot.limit_bytes else b""
        answer: asyncio.Future[tuple[int, Headers, bytes]] = (
            asyncio.get_running_loop().create_future()
        )

        def reply(status: int, headers: Headers, body: bytes) -> None:
            if not answer.done():  # the client may have gone away
                answer.set_result((status, headers, body))

        hot.handle(scope, body, reply)
        status, headers, content = await answer
        await send_bytes(send, status, headers, content, head=scope["method"] == "HEAD")

    return guarded(handler)
