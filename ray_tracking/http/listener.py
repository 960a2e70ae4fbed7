"""
The public port: uvicorn inside the replica, on a socket that all replicas of a node share.

The kernel spreads connections over the sockets that listen on one port with
``SO_REUSEPORT``, so a replica that comes or goes changes nothing for the others, and
no proxy stands between a mail client and us.

A replica that goes answers everybody whom the kernel has given to it. What is left to
chance is a handshake under way at the very moment at which its socket closes, which the
kernel hands on where ``net.ipv4.tcp_migrate_req`` is 1.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from ray_tracking.errors import StartError
from ray_tracking.http.connections import ConnectionPolicy, Peers, is_local
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.live.protocol import MAX_MESSAGE_BYTES, WebSocketProtocol
from ray_tracking.http.ports import Ports
from ray_tracking.http.protocol import Protocol, Route

_BACKLOG = 2048
#: At the end, a connection without a request is closed after so long: until then, its next
#: request is answered, and told that it was the last.
_IDLE_FOR_S = 1.0
#: Requests that are still running so long after that are cut off.
_GRACE_S = 7
#: How often it looks for clients that take too long.
_LOOK_EVERY_S = 1.0


Goodbye = Callable[[], Awaitable[None]]


class _Server(uvicorn.Server):
    """Leaves the process's signals alone, as Serve decides when a replica ends; goes politely."""

    def __init__(self, config: uvicorn.Config, goodbye: Goodbye | None) -> None:
        super().__init__(config)
        self._goodbye = goodbye

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._leave_port(sockets or [])
        if self._goodbye is not None:
            await self._goodbye()
        # In place: the requests that are running hold this list too.
        self.server_state.default_headers.append((b"connection", b"close"))
        until_s = time.monotonic() + _IDLE_FOR_S
        while self.server_state.connections:
            if time.monotonic() > until_s:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _leave_port(self, sockets: list[socket.socket]) -> None:
        """Close the sockets, and take in who has connected but was not yet accepted."""
        late: list[socket.socket] = []
        for server, listening in zip(self.servers, sockets, strict=True):
            # Nothing between the two: the kernel resets whoever comes in between.
            late += _accept_all(listening)
            server.close()
        loop = asyncio.get_running_loop()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    connections: list[socket.socket] = []
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return connections
        except ConnectionError:
            continue  # its client has gone
        connection.setblocking(False)
        connections.append(connection)


class Listener:
    """
    Serves an ASGI app on one port.

    Args:
        app: What answers.
        host: Address to bind; loopback means its IPv6 form as well, where there is one.
        port: Port to share.
        hot: Who takes requests that need no task of their own.
        goodbye: Ends what would go on for ever: live connections.
        affinity: Says which connections belong to another replica of this node.
        policy: How many clients there may be, and how long each may take.
        is_exempt: Which addresses may have any number of connections: they speak for many.
        cors: Whether pages of other origins get answers of their own.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        hot: Route | None = None,
        *,
        goodbye: Goodbye | None = None,
        affinity: Affinity | None = None,
        policy: ConnectionPolicy | None = None,
        is_exempt: Callable[[str], bool] = is_local,
        cors: bool = False,
    ) -> None:
        policy = policy or ConnectionPolicy()
        peers = Peers(policy.max_per_client, is_exempt)
        self._sockets = _bind(host, port)
        if affinity is not None:
            # Its own port, where the others hand on to.
            own = _bind_to("127.0.0.1", 0)
            self._sockets.append(own)
            affinity.port = own.getsockname()[1]
        config = uvicorn.Config(
            app,
            loop="none",
            http=Protocol.of(hot, affinity, policy, peers, cors=cors),
            ws=WebSocketProtocol,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_GRACE_S,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config, goodbye)
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def requests(self) -> int:
        """How many it has answered."""
        return self._server.server_state.total_requests

    async def start(self) -> None:
        """Return when connections are accepted."""
        self._task = asyncio.create_task(self._server.serve(self._sockets))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise StartError("the listener did not start")
            await asyncio.sleep(0.01)
        self._looking = asyncio.create_task(self._look_around())

    async def stop(self) -> None:
        """Accept no more, let what is running finish, close."""
        if self._looking is not None:
            self._looking.cancel()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        for listening in self._sockets:
            listening.close()

    async def _look_around(self) -> None:
        """Give up clients that take too long, for as long as the listener is there."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now_s = time.monotonic()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.look(now_s)


def listener_options(ports: Ports) -> dict[str, Any]:
    """What the settings say of connections, for a :class:`Listener`."""
    settings = ports.settings
    return {
        "policy": ConnectionPolicy(
            max_connections=settings.max_connections,
            max_per_client=settings.max_connections_per_client,
        ),
        "is_exempt": lambda address: is_local(address) or ports.proxies.trusts(address),
        "cors": bool(settings.cors_origins),
    }


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
        try:
            sockets.append(_bind_to(address, port))
        except OSError as error:
            if address == "::1" and sockets:
                continue  # no IPv6 on this machine
            raise StartError(f"port {port} on {address} cannot be had: {error.strerror}") from None
    return sockets


def _bind_to(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
