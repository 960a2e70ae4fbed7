"""``/ws``: campaigns and the system over WebSocket, as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import orjson

from ray_tracking.clock import Clock
from ray_tracking.events import MAX_ID_CHARS
from ray_tracking.http.access import Access, bearer
from ray_tracking.http.asgi import Receive, Refusal, Scope, Send, header
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.live.subscriber import BAD_CREDENTIAL, MAX_SUBSCRIPTIONS, Subscriber
from ray_tracking.pipeline.outbox import Message
from ray_tracking.pipeline.validate import read_identifier

#: The listener's own way to a connection: whole frames, without a task for each.
FRAMES = "tracking.frames"
_AUTHENTICATE_WITHIN_S = 5.0


class Frames(Protocol):
    """What the listener offers for a connection."""

    def write_frame(self, frame: bytes) -> bool:
        """Send a whole frame; False if the connection takes none now."""

    def on_writable(self, call: Any) -> None:
        """What to call when it takes frames again."""

    def give_up(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection whether or not it is taken."""


class BadMessage(Exception):
    """What a client sent cannot be done: a code, and why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class WebSocketLive:
    """
    Serves connections.

    Args:
        hub: Where to subscribe.
        access: Who may.
        origins: Of pages of other hosts that may connect.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, hub: Hub, access: Access, origins: Collection[str], clock: Clock) -> None:
        self._origins = origins
        self._hub = hub
        self._access = access
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from the handshake to its end."""
        await receive()  # websocket.connect
        if not _may_come_from(header(scope, b"origin"), scope, self._origins):
            # Before the handshake: the page of a stranger, in the browser of somebody who may.
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        connection = _Connection(self._hub, self._clock, scope, send)
        try:
            if await self._authenticate(scope, receive, connection):
                await self._serve(receive, connection)
        finally:
            self._hub.leave(connection.subscriber)
            connection.end()

    async def _serve(self, receive: Receive, connection: _Connection) -> None:
        while (text := await _receive(receive)) is not None:
            try:
                self._act(_read(text), connection.subscriber)
            except BadMessage as bad:
                connection.subscriber.send(self._hub.error(bad.code, bad.text))

    async def _authenticate(self, scope: Scope, receive: Receive, connection: _Connection) -> bool:
        """Whether the client may go on; it is told and its connection ended if not."""
        if self._access.is_open or self._access.admits_session(scope):
            return True
        token = bearer(scope)
        if token is None:
            try:
                async with asyncio.timeout(_AUTHENTICATE_WITHIN_S):
                    text = await _receive(receive)
            except TimeoutError:
                text = ""
            if text is None:
                return False
            token = _token(text)
        try:
            if token is None:
                raise Refusal(401, "the first message must be authenticate, with a token", [])
            self._access.require_token(token, "read")
        except Refusal as refusal:
            code = "forbidden" if refusal.status == 403 else "unauthenticated"
            connection.subscriber.send(self._hub.error(code, refusal.text))
            await connection.close(BAD_CREDENTIAL, refusal.text)
            return False
        return True

    def _act(self, asked: dict[str, Any], subscriber: Subscriber) -> None:
        action = asked.get("action")
        if action == "subscribe_campaign":
            subscribe(self._hub, subscriber, asked, detailed=asked.get("detailed", False))
        elif action == "unsubscribe_campaign":
            self._hub.unsubscribe(subscriber, campaign_id_of(asked))
        elif action == "subscribe_system":
            self._hub.subscribe_system(subscriber)
        elif action == "ping":
            subscriber.send(Message("pong", b"{}", self._hub.cursor))
        elif action != "authenticate":  # which is allowed where it is not needed
            raise BadMessage("unknown_action", f"there is no action {action!r}")


def subscribe(hub: Hub, subscriber: Subscriber, asked: dict[str, Any], *, detailed: Any) -> None:
    """
    Subscribe as a client asks.

    Raises:
        BadMessage: If it asks for what cannot be.
    """
    campaign_id, cursor = campaign_id_of(asked), asked.get("cursor")
    if not isinstance(detailed, bool):
        raise BadMessage("bad_request", "detailed must be true or false")
    if not (cursor is None or isinstance(cursor, str)):
        raise BadMessage("bad_request", "cursor must be a string, as a message had it")
    is_new = not hub.is_subscribed(subscriber, campaign_id)
    if is_new and hub.subscriptions(subscriber) >= MAX_SUBSCRIPTIONS:
        raise BadMessage(
            "too_many_subscriptions",
            f"one connection may watch {MAX_SUBSCRIPTIONS} campaigns; unsubscribe from one first",
        )
    hub.subscribe(subscriber, campaign_id, detailed=detailed, cursor=cursor)


def campaign_id_of(asked: dict[str, Any]) -> str:
    """
    The campaign that a message names.

    Raises:
        BadMessage: If it names none.
    """
    campaign_id = read_identifier(asked.get("campaignId"))
    if campaign_id is None:
        raise BadMessage(
            "bad_request", f"campaignId must be a string of 1 to {MAX_ID_CHARS} characters"
        )
    return campaign_id


class _Connection:
    """
    How messages get onto one WebSocket.

    Directly, where the listener offers that; through ASGI and a task where another server
    stands before us.
    """

    def __init__(self, hub: Hub, clock: Clock, scope: Scope, send: Send) -> None:
        self._send = send
        self._frames: Frames | None = scope.get("extensions", {}).get(FRAMES)
        self._pump: asyncio.Task[None] | None = None
        self._some = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        if self._frames is not None:
            self.subscriber = Subscriber(self._write_frame, self._frames.give_up, clock)
            self._frames.on_writable(self.subscriber.flush)
        else:
            self.subscriber = Subscriber(self._wake, self._give_up, clock)
            self._pump = asyncio.create_task(self._run())
        hub.join(self.subscriber)

    def _write_frame(self, message: Message) -> bool:
        assert self._frames is not None
        return self._frames.write_frame(message.framed)

    def _wake(self, message: Message) -> bool:
        self._some.set()
        return False

    def _give_up(self, code: int, reason: str) -> None:
        self._closing = (code, reason)
        self._some.set()

    async def _run(self) -> None:
        while self.subscriber.outbox or self._closing is None:
            await self._some.wait()
            self._some.clear()
            while self.subscriber.outbox:
                text = self.subscriber.take().text.decode()
                await self._send({"type": "websocket.send", "text": text})
        code, reason = self._closing
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def close(self, code: int, reason: str) -> None:
        """End the connection after what was sent to it."""
        self.subscriber.close(code, reason)
        if self._pump is not None:
            await self._pump

    def end(self) -> None:
        """The connection is no more."""
        if self._pump is not None:
            self._pump.cancel()


def _may_come_from(origin: str | None, scope: Scope, allowed: Collection[str]) -> bool:
    """No browser, a page of ours, or one of those that the settings allow."""
    if origin is None or origin in allowed or "*" in allowed:
        return True
    return urlsplit(origin).netloc == (header(scope, b"host") or "")


async def _receive(receive: Receive) -> str | None:
    """The next message; None when the client has gone."""
    event = await receive()
    if event["type"] == "websocket.disconnect":
        return None
    return cast(str, event["text"]) if event.get("text") is not None else ""


def _read(text: str) -> dict[str, Any]:
    try:
        asked = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadMessage("bad_json", f"not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadMessage("bad_request", "a message is an object with an action")
    return asked


def _token(text: str) -> str | None:
    try:
        asked = _read(text)
    except BadMessage:
        return None
    token = asked.get("token")
    return token if asked.get("action") == "authenticate" and isinstance(token, str) else None
