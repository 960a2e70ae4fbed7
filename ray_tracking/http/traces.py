"""Spans of requests whose own ``traceparent`` says that they are recorded."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from ray_tracking.http import hot
from ray_tracking.http.asgi import Handler, Headers, Receive, Scope, Send, header
from ray_tracking.http.hot import Hot, Reply
from ray_tracking.pipeline.receive import is_sampled, trace_context
from ray_tracking.stores.spans import Spans

#: Routes of two parts. Any other path is named by its first: what follows may be somebody's.
_LONGER_ROUTES = frozenset(
    {"/events/batch", "/webhook/tracking", "/metrics/tracking", "/health/tracking"}
)


class Traces:
    """
    Puts a span around handlers.

    Args:
        spans: Where they go; None to leave handlers as they are.
    """

    def __init__(self, spans: Spans | None) -> None:
        self._spans = spans

    def asgi(self, handler: Handler) -> Handler:
        """The same handler; its answer is a span's end."""
        if self._spans is None:
            return handler

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            parent = _recorded(scope)
            if parent is None:
                await handler(scope, receive, send)
                return
            began_ns, status = time.time_ns(), 500

            async def noting(message: MutableMapping[str, Any]) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await handler(scope, receive, noting)
            finally:
                self._record(scope, parent, began_ns, status)

        return traced

    def hot(self, inner: Hot) -> Hot:
        """The same for a handler that needs no task."""
        if self._spans is None:
            return inner

        def handle(scope: Scope, body: bytes, reply: Reply) -> None:
            parent = _recorded(scope)
            if parent is None:
                inner.handle(scope, body, reply)
                return
            began_ns = time.time_ns()

            def noting(status: int, headers: Headers, content: bytes) -> None:
                reply(status, headers, content)
                self._record(scope, parent, began_ns, status)

            hot.run(inner, scope, body, noting)  # which answers refusals as well

        return inner._replace(handle=handle)

    def _record(self, scope: Scope, parent: str, began_ns: int, status: int) -> None:
        assert self._spans is not None
        path: str = scope["path"]
        route = path if path in _LONGER_ROUTES else "/" + path.split("/", 2)[1]
        self._spans.record(
            f"{scope['method']} {route}",
            parent,
            began_ns,
            time.time_ns(),
            kind="server",
            attributes={
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
            },
            failed=status >= 500,
        )


def _recorded(scope: Scope) -> str | None:
    parent = trace_context(header(scope, b"traceparent"))
    return parent if is_sampled(parent) else None
