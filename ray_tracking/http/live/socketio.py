"""
Socket.IO at ``/socket.io/``: the events of ``/ws`` for clients that speak this.

The protocol is python-socketio's. Messages take a shorter way: they are encoded once for all
clients and put where the connection's writer takes them from, a few at a time, so that what a
slow client has waiting is in its outbox, where it is conflated.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import parse_qs

import socketio
from engineio.packet import MESSAGE, Packet
from socketio.exceptions import ConnectionRefusedError as Refused

from ray_tracking.clock import Clock
from ray_tracking.http.access import Access, bearer
from ray_tracking.http.asgi import Receive, Refusal, Scope, Send
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.live.subscriber import Subscriber
from ray_tracking.http.live.websocket import (
    FRAMES,
    BadMessage,
    Frames,
    campaign_id_of,
    subscribe,
)
from ray_tracking.pipeline.outbox import Message

_MAX_MESSAGE_BYTES = 64 * 1024
#: Handed to the connection at once.
_CHUNK_BYTES = 64 * 1024
_NAMESPACE = "/"

# Its loggers say what a client does wrong, once for each: that is told to the client.
_quiet = logging.getLogger("ray_tracking.socketio")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class SocketIo:
    """
    Serves Socket.IO clients.

    Args:
        hub: Where to subscribe.
        access: Who may.
        affinity: Makes the ids of sessions.
        origins: Of pages of other hosts that may connect; without any, of none.
        clock: Unix milliseconds, never going back.
    """

    def __init__(
        self, hub: Hub, access: Access, affinity: Affinity, origins: Any, clock: Clock
    ) -> None:
        self._hub = hub
        self._access = access
        self._clock = clock
        self._clients: dict[str, _Client] = {}
        #: The listener's way to the WebSocket of a session, where it has one.
        self._frames: dict[str, Frames] = {}
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            async_handlers=False,
            cors_allowed_origins=list(origins) or None,
            max_http_buffer_size=_MAX_MESSAGE_BYTES,
            http_compression=False,
            logger=_quiet,
            engineio_logger=_quiet,
        )
        self._server.eio.generate_id = affinity.new_id
        for name, handler in (
            ("connect", self._connect),
            ("disconnect", self._disconnect),
            ("subscribe_campaign", self._subscribe),
            ("unsubscribe_campaign", self._unsubscribe),
            ("subscribe_system", self._subscribe_system),
            ("ping", self._ping),
            ("*", self._unknown),
        ):
            self._server.on(name, handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of a session, or its WebSocket."""
        frames = scope.get("extensions", {}).get(FRAMES)
        session = parse_qs(scope["query_string"].decode("latin-1")).get("sid", [None])[0]
        if frames is not None and session is not None:
            self._frames[session] = frames
        try:
            await self._server.eio.handle_request(scope, receive, send)
        finally:
            if frames is not None and session is not None:
                self._frames.pop(session, None)

    # -- what clients do -------------------------------------------------------------

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        scope: Scope = environ["asgi.scope"]
        if not self._access.is_open:
            token = auth.get("token") if isinstance(auth, dict) else None
            token = token if isinstance(token, str) else bearer(scope)
            if token is None:
                raise Refused("an API key is needed: io(url, {auth: {token: KEY}})")
            try:
                self._access.require_token(token, "read")
            except Refusal as refusal:
                raise Refused(refusal.text) from None
        session = self._server.manager.eio_sid_from_sid(sid, _NAMESPACE)
        if (frames := scope.get("extensions", {}).get(FRAMES)) is not None:
            self._frames[session] = frames
        self._clients[sid] = _Client(self._server, session, self._frames, self._clock)
        self._hub.join(self._clients[sid].subscriber)

    async def _disconnect(self, sid: str, reason: str) -> None:
        if (client := self._clients.pop(sid, None)) is not None:
            self._hub.leave(client.subscriber)
            self._frames.pop(client.session, None)
            client.end()

    async def _subscribe(self, sid: str, asked: Any = None) -> None:
        subscriber = self._clients[sid].subscriber
        try:
            asked = _object(asked)
            subscribe(self._hub, subscriber, asked, detailed=asked.get("detailed", True))
        except BadMessage as bad:
            subscriber.send(self._hub.error(bad.code, bad.text))

    async def _unsubscribe(self, sid: str, asked: Any = None) -> None:
        subscriber = self._clients[sid].subscriber
        try:
            self._hub.unsubscribe(subscriber, campaign_id_of(_object(asked)))
        except BadMessage as bad:
            subscriber.send(self._hub.error(bad.code, bad.text))

    async def _subscribe_system(self, sid: str, asked: Any = None) -> None:
        self._hub.subscribe_system(self._clients[sid].subscriber)

    async def _ping(self, sid: str, asked: Any = None) -> None:
        self._clients[sid].subscriber.send(Message("pong", b"{}", self._hub.cursor))

    async def _unknown(self, name: str, sid: str, *asked: Any) -> None:
        self._clients[sid].subscriber.send(
            self._hub.error("unknown_action", f"there is no action {name!r}")
        )


class _Client:
    """How messages get to one client."""

    def __init__(
        self,
        server: Any,
        session: str,
        frames: dict[str, Frames],
        clock: Clock,
    ) -> None:
        self.session = session
        self._engine = server.eio
        self._frames = frames
        self._some = asyncio.Event()
        self._tasks = {asyncio.create_task(self._run())}
        self.subscriber = Subscriber(self._wake, self._give_up, clock)

    def _wake(self, message: Message) -> bool:
        self._some.set()
        return False

    def _give_up(self, code: int, reason: str) -> None:
        frames = self._frames.get(self.session)
        if frames is not None:
            frames.give_up(code, reason)
        else:
            # Not as Socket.IO's own disconnect, after which a client does not come back.
            self._tasks.add(asyncio.create_task(self._engine.disconnect(self.session)))

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self.subscriber.outbox:
                socket = self._engine.sockets.get(self.session)
                if socket is None:
                    return
                room = _CHUNK_BYTES
                while self.subscriber.outbox and room > 0:
                    message = self.subscriber.take()
                    room -= message.size_bytes
                    socket.queue.put_nowait(Packet(MESSAGE, message.socket_io))
                # Until its writer, or a poll, has taken them.
                await socket.queue.join()

    def end(self) -> None:
        """The client has gone."""
        for task in self._tasks:
            task.cancel()


def _object(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, dict):
        raise BadMessage("bad_request", "what comes with the event is an object")
    return asked
