"""Clients of ``/ws``, with an independent implementation of the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect

_WITHIN_S = 8.0


class LiveClient:
    """
    One connection, and all that it was told.

    Args:
        url: Of the service, ``http://…``.
        headers: Sent with the handshake.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self._url = url.replace("http", "ws", 1) + "/ws"
        self._headers = headers
        self._socket: ClientConnection | None = None
        self.heard: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self._socket = await connect(
            self._url, additional_headers=self._headers, proxy=None, compression=None
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.socket.close()

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    @property
    def cursor(self) -> str:
        """Of the last message."""
        cursor: str = self.heard[-1]["cursor"]
        return cursor

    async def say(self, action: str, **more: Any) -> None:
        """Send a message."""
        await self.socket.send(json.dumps({"action": action, **more}))

    async def hear(self, within_s: float = _WITHIN_S) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(within_s):
            told: dict[str, Any] = json.loads(await self.socket.recv())
        assert told.keys() == {"event", "data", "cursor"}
        self.heard.append(told)
        return told

    async def until(
        self, event: str, check: Callable[[Any], Any] = bool, within_s: float = _WITHIN_S
    ) -> Any:
        """The data of the next message of that name that passes the check."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    told = await self.hear(within_s)
                    if told["event"] == event and check(told["data"]):
                        return told["data"]
        except TimeoutError:
            raise AssertionError(f"no such {event} among {self.heard[-20:]}") from None

    async def subscribe(self, campaign_id: str, **more: Any) -> dict[str, Any]:
        """Subscribe; what the answer says."""
        await self.say("subscribe_campaign", campaignId=campaign_id, **more)
        told: dict[str, Any] = await self.until(
            "subscribed", lambda d: d["campaignId"] == campaign_id
        )
        return told
