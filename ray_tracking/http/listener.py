"""
The public port: uvicorn inside the replica, on a socket that all replicas of a node share.

The kernel spreads connections over the sockets that listen on one port with
``SO_REUSEPORT``, so a replica that comes or goes changes nothing for the others, and
no proxy stands between a mail client and us.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from ray_tracking.errors import StartError

_BACKLOG = 2048
#: Requests that are still running after this long at the end are cut off.
_GRACE_S = 8


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: Serve decides when a replica ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """
    Serves an ASGI app on one port.

    Args:
        app: What answers.
        host: Address to bind; loopback means its IPv6 form as well, where there is one.
        port: Port to share.
    """

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._sockets = _bind(host, port)
        config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_S,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when connections are accepted."""
        self._task = asyncio.create_task(self._server.serve(self._sockets))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise StartError("the listener did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Accept no more, let what is running finish, close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        for listening in self._sockets:
            listening.close()


def _bind(host: str, port: int) -> list[socket.socket]:
    """
    The sockets to listen on.

    Raises:
        StartError: If the port cannot be had.
    """
    hosts = [host]
    if host in ("127.0.0.1", "localhost"):
        hosts = ["127.0.0.1", "::1"]
    sockets: list[socket.socket] = []
    for address in hosts:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((address, port))
        except OSError as error:
            if address == "::1" and sockets:
                continue  # no IPv6 on this machine
            raise StartError(f"port {port} on {address} cannot be had: {error.strerror}") from None
        listening.setblocking(False)
        sockets.append(listening)
    return sockets
