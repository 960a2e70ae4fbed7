"""Calls to actors by name: the one place where Ray's errors become ours."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayActorError, RaySystemError

from ray_tracking.errors import Unavailable

NAMESPACE = "ray_tracking"


class ShardClients:
    """
    Calls shards by index.

    Args:
        names: The actor name of each shard.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._handles: dict[int, Any] = {}

    async def submit(self, shard: int, blob: bytes) -> bytes:
        """
        Send submissions to a shard.

        Raises:
            Unavailable: If it cannot be reached. Whether it had got the blob is open;
                sending the same blob again is safe.
        """
        answer: bytes = await self._call(shard, "submit", blob)
        return answer

    async def drain_spool(self, shard: int, blob: bytes) -> bytes:
        """
        Hand a chunk of a spool to a shard.

        Raises:
            Unavailable: As :meth:`submit`.
        """
        answer: bytes = await self._call(shard, "drain_spool", blob)
        return answer

    async def statuses(self, timeout_s: float = 2.0) -> list[dict[str, Any] | None]:
        """What each shard says of itself; None for one that does not answer in time."""

        async def ask(shard: int) -> dict[str, Any] | None:
            try:
                async with asyncio.timeout(timeout_s):
                    status: dict[str, Any] = await self._call(shard, "status")
                    return status
            except (Unavailable, TimeoutError):
                return None

        return list(await asyncio.gather(*[ask(shard) for shard in range(len(self._names))]))

    async def _call(self, shard: int, method: str, *args: Any) -> Any:
        try:
            handle = self._handles.get(shard)
            if handle is None:
                handle = self._find(shard)
                self._handles[shard] = handle
            return await getattr(handle, method).remote(*args)
        except (RayActorError, RaySystemError, ValueError) as error:
            # ValueError: no actor of that name now. It may come back under a new handle.
            self._handles.pop(shard, None)
            raise Unavailable(f"shard {shard} cannot be reached") from error

    def _find(self, shard: int) -> Any:
        name = self._names[shard]
        try:
            return ray.get_actor(name, NAMESPACE)
        except ValueError:
            # A redeployment has put another generation in its place, and will replace us
            # too. Until then we go on with that one, if it speaks as we do.
            for successor in actor_names(name.rpartition("-")[0]):
                return ray.get_actor(successor, NAMESPACE)
            raise


def actor_names(prefix: str) -> list[str]:
    """The names of our actors that begin so."""
    return [
        entry["name"]
        for entry in ray.util.list_named_actors(all_namespaces=True)
        if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix)
    ]
