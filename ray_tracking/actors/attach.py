"""
The way from any process on the same Ray to the running application.

Serve says where a replica is; what is asked goes over a socket of its own
(:mod:`ray_tracking.actors.calls`), and what is told comes from the broadcaster.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError

from ray_tracking.actors.calls import CallClient, CallFailed, Endpoint
from ray_tracking.actors.clients import NAMESPACE, BroadcasterClient
from ray_tracking.actors.nodes import check_listens
from ray_tracking.api.attempts import Request, Response
from ray_tracking.errors import Unavailable, Unreachable
from ray_tracking.pipeline.broadcast import Hear, Polled
from ray_tracking.settings.environment import ray_address

_ATTACH_WITHIN_S = 5.0
#: The deployments that make an application one of ours.
_OURS = {"Ingress", "Supervisor"}
_REQUEST = 0

_encode = msgspec.msgpack.Encoder().encode
_read_response = msgspec.msgpack.Decoder(Response).decode
_read_polled = msgspec.msgpack.Decoder(Polled).decode


class Attachment(NamedTuple):
    """What an ingress replica says to whoever attaches to it."""

    endpoint: Endpoint
    broadcaster: str
    #: How long an event that comes again is known.
    known_for_ms: int


def join(address: str | None) -> bool:
    """
    Join Ray, where this process has not yet.

    Args:
        address: Of the Ray; None for the one that Ray finds (``RAY_ADDRESS``, or this machine's).

    Returns:
        Whether it has joined now.

    Raises:
        Unreachable: If there is none.
    """
    if ray.is_initialized():
        return False
    named = address or ray_address()
    try:
        if named is not None:
            check_listens(named)
        ray.init(
            address=address or "auto",
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Unavailable as error:
        raise Unreachable(str(error)) from None
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise Unreachable(f"no Ray to join: {error}") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return True


def leave() -> None:
    """Leave the Ray that :func:`join` has joined."""
    ray.shutdown()


class Attached:
    """
    The way to one application.

    Args:
        application: Its name in Serve; None for the only one there is.
    """

    def __init__(self, application: str | None) -> None:
        self._application = application
        self._connecting: asyncio.Task[CallClient] | None = None
        self._broadcaster: BroadcasterClient | None = None
        self._ingress: Any = None
        #: Calls that go on although nobody waits for them any more.
        self._calls: set[asyncio.Task[bytes]] = set()
        #: How long an event that comes again is known.
        self.known_for_ms = 0

    async def open(self) -> None:
        """
        Find the application.

        Raises:
            Unreachable: It is not there, or does not answer.
        """
        await self._connection()

    async def send(self, request: Request) -> Response:
        """
        Have a replica answer a request.

        Raises:
            Unreachable: There is no answer; whether the request arrived is open.
        """
        connection = await self._connection()
        # Others wait on the same connection, which is given up only if it is dead.
        call = asyncio.create_task(connection.call(_REQUEST, _encode(request)))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(request.within_s):
                return _read_response(await asyncio.shield(call))
        except TimeoutError:
            connection.close()
            raise Unreachable("the replica does not answer in time") from None
        except (Unavailable, CallFailed) as error:
            raise Unreachable(f"the replica does not answer: {error}") from None

    async def hear(self, asked: Hear) -> Polled:
        """
        What was told since; waits for it, for ten seconds at the most.

        Raises:
            Unavailable: The broadcaster cannot be reached.
        """
        assert self._broadcaster is not None
        return _read_polled(await self._broadcaster.hear(_encode(asked)))

    async def close(self) -> None:
        """Drop the connections."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
            if not self._connecting.cancelled() and self._connecting.exception() is None:
                self._connecting.result().close()
        if self._broadcaster is not None:
            await self._broadcaster.close()

    def _attach(self) -> Attachment:
        if self._ingress is None:
            name = self._application or _only_application()
            self._ingress = serve.get_deployment_handle("Ingress", name)
        answer = self._ingress.attach.remote()
        attachment: Attachment = answer.result(timeout_s=_ATTACH_WITHIN_S)
        return attachment

    def _forget(self, call: asyncio.Task[bytes]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # whoever waited has heard of it

    async def _connection(self) -> CallClient:
        opening = self._connecting
        if opening is None or (opening.done() and _is_lost(opening)):
            opening = self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(opening)

    async def _connect(self) -> CallClient:
        try:
            async with asyncio.timeout(2 * _ATTACH_WITHIN_S):
                # Serve's own calls block.
                attachment = await asyncio.to_thread(self._attach)
                connection = await CallClient.connect(attachment.endpoint)
        except Unreachable:
            raise
        except Exception as error:
            # Whatever Ray or Serve say: to whoever asks, it is not there now.
            raise Unreachable(f"ray-tracking does not answer: {error!r}") from None
        self.known_for_ms = attachment.known_for_ms
        if self._broadcaster is None:
            self._broadcaster = BroadcasterClient(attachment.broadcaster)
        return connection


def _only_application() -> str:
    found: list[str] = [
        name
        for name, application in serve.status().applications.items()
        if application.deployments.keys() >= _OURS
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Unreachable(f"there are several: say which, {' or '.join(sorted(found))}")
    raise Unreachable(
        f"there is none on the Ray at {ray.get_runtime_context().gcs_address}; "
        "RAY_ADDRESS says which Ray is meant"
    )


def _is_lost(opening: asyncio.Task[CallClient]) -> bool:
    return opening.cancelled() or opening.exception() is not None or opening.result().lost
