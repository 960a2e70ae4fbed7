"""
Calls to actors by name: the one place where Ray's errors become ours.

Events and frames go over a socket to the actor's own process (:mod:`ray_tracking.actors.calls`), to
which Ray shows the way; everything else is a call of Ray's.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray.exceptions import RayError

from ray_tracking.actors.calls import CallClient, Endpoint
from ray_tracking.errors import Unavailable

NAMESPACE = "ray_tracking"
_CONNECT_WITHIN_S = 2.0
_AGAIN_S = 0.05
#: The methods of a shard that are called over its socket, by index.
SUBMIT, DRAIN_SPOOL = range(2)
#: Those of the broadcaster.
POLL, WATCH, HEAR = range(3)


class _Clients:
    """
    Calls actors by index.

    Args:
        names: The name of each.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._handles: dict[int, Any] = {}
        self._connections: dict[int, asyncio.Task[CallClient]] = {}
        #: Where each was found last.
        self._endpoints: dict[int, Endpoint] = {}

    async def statuses(self, timeout_s: float = 2.0) -> list[dict[str, Any] | None]:
        """What each says of itself; None for one that does not answer in time."""

        async def ask(index: int) -> dict[str, Any] | None:
            try:
                async with asyncio.timeout(timeout_s):
                    status: dict[str, Any] = await self._call(index, "status")
                    return status
            except (Unavailable, TimeoutError):
                return None

        return list(await asyncio.gather(*[ask(index) for index in range(len(self._names))]))

    async def close(self) -> None:
        """Drop the connections."""
        for opening in self._connections.values():
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                (await opening).close()

    async def _send(self, index: int, method: int, blob: bytes) -> bytes:
        opening = self._connections.get(index)
        if opening is None or (opening.done() and _is_lost(opening)):
            opening = self._connections[index] = asyncio.create_task(self._connect(index))
        # Others wait for it as well: who gives up does not end it.
        connection = await asyncio.shield(opening)
        return await connection.call(method, blob)

    async def _connect(self, index: int) -> CallClient:
        # Ray hears of a new start a second after it, and may never answer what it was asked
        # meanwhile; mostly the actor is where it was.
        ways = [asyncio.create_task(self._connect_by_ray(index))]
        if (known := self._endpoints.get(index)) is not None:
            ways.append(asyncio.create_task(_connect_again(known)))
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self._handles.pop(index, None)
            raise Unavailable(f"{self._names[index]} does not say where it is") from None
        finally:
            for way in ways:
                way.cancel()  # which closes what it was opening
        opened, *others = sorted((way for way in ways if way.done()), key=_is_lost)
        for other in others:
            if not _is_lost(other):
                other.result().close()
        return opened.result()

    async def _connect_by_ray(self, index: int) -> CallClient:
        endpoint: Endpoint = await self._call(index, "endpoint")
        connection = await CallClient.connect(endpoint)
        self._endpoints[index] = endpoint
        return connection

    async def _call(self, index: int, method: str, *args: Any) -> Any:
        try:
            handle = self._handles.get(index)
            if handle is None:
                handle = self._find(index)
                self._handles[index] = handle
            return await getattr(handle, method).remote(*args)
        except (RayError, ValueError) as error:
            # ValueError: no actor of that name now. It may come back under a new handle.
            self._handles.pop(index, None)
            raise Unavailable(f"{self._names[index]} cannot be reached") from error

    def _find(self, index: int) -> Any:
        name = self._names[index]
        try:
            return ray.get_actor(name, NAMESPACE)
        except ValueError:
            # A redeployment has put another generation in its place, and will replace us
            # too. Until then we go on with that one, if it speaks as we do.
            for successor in actor_names(name.rpartition("-")[0]):
                return ray.get_actor(successor, NAMESPACE)
            raise


class ShardClients(_Clients):
    """Calls shards by index."""

    async def submit(self, shard: int, blob: bytes) -> bytes:
        """
        Send submissions to a shard.

        Raises:
            Unavailable: If it cannot be reached. Whether it had got the blob is open;
                sending the same blob again is safe.
        """
        return await self._send(shard, SUBMIT, blob)

    async def drain_spool(self, shard: int, blob: bytes) -> bytes:
        """
        Hand a chunk of a spool to a shard.

        Raises:
            Unavailable: As :meth:`submit`.
        """
        return await self._send(shard, DRAIN_SPOOL, blob)


class BroadcasterClient(_Clients):
    """
    Calls the broadcaster.

    Args:
        name: Of its actor.
    """

    def __init__(self, name: str) -> None:
        super().__init__([name])

    async def poll(self, blob: bytes) -> bytes:
        """
        Ask for frames, and wait until there are some.

        Raises:
            Unavailable: If it cannot be reached.
        """
        return await self._send(0, POLL, blob)

    async def watch(self, blob: bytes) -> bytes:
        """
        Say which campaigns have subscribers here, and hear how they stand.

        Raises:
            Unavailable: If it cannot be reached.
        """
        return await self._send(0, WATCH, blob)

    async def hear(self, blob: bytes) -> bytes:
        """
        Ask for what attached processes are told, and wait until there is something.

        Raises:
            Unavailable: If it cannot be reached.
        """
        return await self._send(0, HEAR, blob)


async def _connect_again(endpoint: Endpoint) -> CallClient:
    """Return as soon as somebody is there."""
    while True:
        try:
            return await CallClient.connect(endpoint)
        except Unavailable:
            await asyncio.sleep(_AGAIN_S)


def _is_lost(opening: asyncio.Task[CallClient]) -> bool:
    return opening.cancelled() or opening.exception() is not None or opening.result().lost


def actor_names(prefix: str) -> list[str]:
    """The names of our actors that begin so."""
    return [
        entry["name"]
        for entry in ray.util.list_named_actors(all_namespaces=True)
        if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix)
    ]
