"""The way from inside the cluster, without Ray, which would only say where it begins."""

from __future__ import annotations

import asyncio

import msgspec

from ray_tracking.actors.calls import CallClient, CallServer
from ray_tracking.api.attempts import Request, Response
from ray_tracking.api.methods import AsyncMethods
from ray_tracking.errors import Unavailable, Unreachable
from ray_tracking.http.inside import Inside
from tests.support.service import Service


class InsideClient(AsyncMethods):
    """
    The methods of a processor, over the socket of a replica.

    Args:
        service: Whose.
        retry_for_s: How long a call is tried again.
    """

    def __init__(self, service: Service, retry_for_s: float = 5.0) -> None:
        super().__init__(retry_for_s)
        self._server = CallServer([Inside(service.app).request])
        self._starting = asyncio.create_task(self._server.start("127.0.0.1"))
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> CallClient:
        return await CallClient.connect(await self._starting)

    async def reconnect(self) -> None:
        """Lose the connection, and have another."""
        lost, self._connecting = await self._connecting, asyncio.create_task(self._connect())
        await self._connecting
        lost.close()

    async def _send(self, request: Request) -> Response:
        return await self.request(request)

    async def request(self, request: Request) -> Response:
        """One request, whatever the answer."""
        connection = await self._connecting
        try:
            blob = await connection.call(0, msgspec.msgpack.encode(request))
        except Unavailable as error:
            raise Unreachable(str(error)) from None
        return msgspec.msgpack.decode(blob, type=Response)

    async def close(self) -> None:
        """Drop the connection."""
        (await self._connecting).close()
        await self._server.close()
