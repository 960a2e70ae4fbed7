"""
Requests that come from inside the cluster, over a socket of the replica's own.

They are answered by the same app as those that come over HTTP. Who may connect, Ray has let
in: no key is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import unquote

import msgspec

from ray_tracking.api.attempts import Request, Response
from ray_tracking.http.app import App
from ray_tracking.http.asgi import INSIDE, Headers, Scope
from ray_tracking.http.hot import run

_read = msgspec.msgpack.Decoder(Request).decode
_write = msgspec.msgpack.Encoder().encode


class Inside:
    """
    Answers requests from inside.

    Args:
        app: Of the replica.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def request(self, blob: bytes) -> bytes:
        """A :class:`Request`; answered by a :class:`Response`."""
        request = _read(blob)
        scope = _scope(request)
        hot = self._app.hot(request.method, scope["path"])
        if hot is None:
            status, headers, body = await self._asgi(scope, request.body)
        else:
            answer: asyncio.Future[tuple[int, Headers, bytes]] = (
                asyncio.get_running_loop().create_future()
            )

            def reply(status: int, headers: Headers, body: bytes) -> None:
                if not answer.done():  # whoever asked may have gone away
                    answer.set_result((status, headers, body))

            run(hot, scope, request.body, reply)
            status, headers, body = await answer
        names = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        return _write(Response(status, names, body))

    async def _asgi(self, scope: Scope, body: bytes) -> tuple[int, Headers, bytes]:
        status, headers, parts = 500, Headers(), list[bytes]()
        is_read = False

        async def receive() -> MutableMapping[str, Any]:
            nonlocal is_read
            if is_read:
                await asyncio.Event().wait()  # nobody goes away before the answer
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return status, headers, b"".join(parts)


def _scope(request: Request) -> Scope:
    path, _, query = request.path.partition("?")
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in request.headers.items()
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [*headers, (b"content-length", str(len(request.body)).encode())],
        "client": None,
        "server": None,
        "extensions": {INSIDE: {}},
    }
