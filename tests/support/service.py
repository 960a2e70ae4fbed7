"""The HTTP app on a port, and a client of it."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
from yarl import URL

from ray_tracking.http.app import App
from ray_tracking.http.listener import Listener, listener_options
from ray_tracking.http.ports import Ports
from ray_tracking.http.report import Reporter


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which says that it is JSON and is."""
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)


class Service:
    """
    The HTTP app on a port, and a client of it.

    Args:
        ports: What the app works with.
        port: Where it listens.
    """

    def __init__(self, ports: Ports, port: int) -> None:
        self.ports = ports
        self.app = App(ports)
        self.reporter = Reporter(uuid4().hex[:12], self.app, ports)
        self.listener = Listener(
            self.app,
            "127.0.0.1",
            port,
            self.app.hot,
            goodbye=ports.hub.say_goodbye,
            affinity=ports.affinity,
            **listener_options(ports),
        )
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.client = aiohttp.ClientSession(auto_decompress=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        value: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        One request. The path goes out as it is written; redirects are not followed.

        Args:
            method: Such as ``GET``.
            path: With query, if there is one.
            value: Sent as JSON, with its header.
            body: Sent as it is, without any header that is not given; an async
                iterator is sent in chunks.
            headers: More of them.
        """
        given = dict(headers or {})
        if value is not None:
            body = json.dumps(value).encode()
            given.setdefault("Content-Type", "application/json")
        if isinstance(body, bytes):
            body = io.BytesIO(body)  # aiohttp warns of large ones otherwise
        async with self.client.request(
            method,
            URL(self.url + path, encoded=True),
            data=body,
            headers=given,
            skip_auto_headers=("Content-Type", "User-Agent"),
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        """``GET``."""
        return await self.call("GET", path, **more)

    async def post(self, path: str, value: Any = None, **more: Any) -> Answer:
        """``POST`` of a value as JSON, or of a body."""
        return await self.call("POST", path, value=value, **more)

    async def close(self) -> None:
        """As a replica ends."""
        await self.client.close()
        await self.listener.stop()
        await self.app.tracking.drain()
        await self.ports.gatherer.drain()
        await self.ports.hub.stop()
        if self.ports.spooler is not None:
            await self.ports.spooler.close()
        await self.ports.queries.close()
        if self.ports.spans is not None:
            await self.ports.spans.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
