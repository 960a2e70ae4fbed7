"""
Clients of a running service, from any Python program.

::

    client = TrackingClient("http://127.0.0.1:8000")
    async for update in client.watch("campaign_123"):
        print(update.data)
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ray_tracking.errors import TrackingError
from ray_tracking.pipeline.backoff import Backoff

_BAD_CREDENTIAL = 4401
_BACKOFF = Backoff(first_s=0.1, longest_s=5.0)
#: A batch of a hundred events has some tens of KiB.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024


class AccessRefused(TrackingError):
    """The service does not take the key, or the lack of one."""

    code = "access_refused"


class WatchRefused(TrackingError):
    """The service says that what is asked for cannot be."""

    code = "watch_refused"


class Update(NamedTuple):
    """
    One message about a campaign.

    ``event`` and ``data`` are those of ``/asyncapi.json``. The first is ``subscribed``, which
    holds the figures as they are, and so is the first after a connection was lost; there
    ``data["recovered"]`` says whether nothing was missed in between.
    """

    event: str
    data: dict[str, Any]
    cursor: str


class TrackingClient:
    """
    Talks to one service.

    Args:
        url: Where it is, ``http://`` or ``https://``.
        api_key: With the scope ``read``, where the service has keys.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is not the address of a service: http://HOST:PORT")
        scheme = "wss" if parts.scheme == "https" else "ws"
        self._socket_url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/ws"
        self._api_key = api_key

    async def watch(
        self, campaign_id: str, *, detailed: bool = False, cursor: str | None = None
    ) -> AsyncIterator[Update]:
        """
        A campaign as it happens, for as long as it is iterated.

        A connection that is lost is opened again, and goes on where it was.

        Args:
            campaign_id: Which campaign.
            detailed: Show each event, not the figures alone.
            cursor: Of the last update that was seen, to go on behind it.

        Raises:
            AccessRefused: The service does not take the key.
            WatchRefused: There can be no such campaign.
        """
        attempt = 0
        while True:
            try:
                async with connect(
                    self._socket_url, compression=None, max_size=_MAX_MESSAGE_BYTES
                ) as socket:
                    await self._ask(socket, campaign_id, detailed, cursor)
                    async for text in socket:
                        told = json.loads(text)
                        if told["event"] == "error":
                            _check(told["data"])
                            continue
                        attempt = 0
                        cursor = told["cursor"]
                        yield Update(told["event"], told["data"], told["cursor"])
            except InvalidStatus as error:
                raise AccessRefused(str(error)) from None
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == _BAD_CREDENTIAL:
                    raise AccessRefused(closed.rcvd.reason) from None
            except (OSError, TimeoutError, WebSocketException):
                pass  # not there now
            await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
            attempt += 1

    async def _ask(
        self, socket: ClientConnection, campaign_id: str, detailed: bool, cursor: str | None
    ) -> None:
        if self._api_key is not None:
            await socket.send(json.dumps({"action": "authenticate", "token": self._api_key}))
        asked = {"action": "subscribe_campaign", "campaignId": campaign_id, "detailed": detailed}
        await socket.send(json.dumps(asked | ({"cursor": cursor} if cursor else {})))


class AsyncTrackingClient(TrackingClient):
    """The same: what there is to watch is asynchronous anyway."""


def _check(error: dict[str, Any]) -> None:
    if error["code"] == "bad_request":
        raise WatchRefused(error["message"])
    if error["code"] in ("unauthenticated", "forbidden"):
        raise AccessRefused(error["message"])
