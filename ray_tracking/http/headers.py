"""What every answer says to browsers, beyond what its handler says."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from ray_tracking.http.asgi import Handler, Send

#: Of every answer: a GIF is a GIF, and JSON is not a page.
NOSNIFF = (b"x-content-type-options", b"nosniff")
#: Of what is not for embedding, nor for keeping: all but pixels, clicks and events.
_CLOSED = (
    NOSNIFF,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)

_ALLOWED = (
    "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "Last-Event-ID",
    "Traceparent", "Tracestate",
)  # fmt: skip
_EXPOSED = ("Retry-After", "X-Tracking-Durable", "WWW-Authenticate")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_PREFLIGHT_FOR_S = 600


def closed(send: Send) -> Send:
    """Sends an answer that nobody embeds, keeps, or takes for something else."""
    return _adding(send, _CLOSED)


def plain(send: Send) -> Send:
    """Sends an answer that nobody takes for something else."""
    return _adding(send, (NOSNIFF,))


def _adding(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    async def sends(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = list(message["headers"])
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *[pair for pair in headers if pair[0] not in names]]
        await send(message)

    return sends


def for_origins(handler: Handler, origins: Sequence[str]) -> Handler:
    """Let pages of these origins ask; none: only pages of our own."""
    if not origins:
        return handler
    return CORSMiddleware(
        handler,
        allow_origins=list(origins),
        allow_methods=_METHODS,
        allow_headers=_ALLOWED,
        expose_headers=_EXPOSED,
        max_age=_PREFLIGHT_FOR_S,
    )
