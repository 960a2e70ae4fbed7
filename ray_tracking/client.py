"""
Clients of a running service, from any Python program.

::

    client = TrackingClient("http://127.0.0.1:8000")
    result = client.process_event(
        {"campaign_id": "spring", "lead_id": "ada", "email_id": "m1", "timestamp": now},
        "EMAIL_OPEN",
    )

    async with AsyncTrackingClient("http://127.0.0.1:8000") as client:
        async for update in client.watch("spring"):
            print(update.data)

Both ask again where that may help, for ``retry_for_s`` at the most, and never sooner than the
service's ``Retry-After``.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import urllib3
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ray_tracking.api import calls, wire
from ray_tracking.api.answers import (
    BatchResult,
    ComponentHealth,
    HealthStatus,
    ProcessingResult,
    ProcessingStats,
    ReplayStarted,
    Validation,
)
from ray_tracking.api.attempts import RETRY_FOR_S, Plan, Request, Response
from ray_tracking.api.carriers import carry_out_here
from ray_tracking.api.methods import AsyncMethods, Validator, patience
from ray_tracking.errors import AccessRefused, TrackingError, Unreachable
from ray_tracking.events import EventType
from ray_tracking.pipeline.backoff import Backoff

__all__ = [
    "RETRY_FOR_S",
    "AccessRefused",
    "AsyncTrackingClient",
    "TrackingClient",
    "Update",
    "WatchRefused",
]

_BAD_CREDENTIAL = 4401
_BACKOFF = Backoff(first_s=0.1, longest_s=5.0)
#: A batch of a hundred events has some tens of KiB.
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


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


class _Service:
    """Where a service is, and what opens it."""

    def __init__(self, url: str, api_key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is not the address of a service: http://HOST:PORT")
        scheme = "wss" if parts.scheme == "https" else "ws"
        path = parts.path.rstrip("/")
        self.base = f"{parts.scheme}://{parts.netloc}{path}"
        self.socket_url = f"{scheme}://{parts.netloc}{path}/ws"
        self.api_key = api_key

    def headers(self, request: Request) -> dict[str, str]:
        """Of a request."""
        if self.api_key is None:
            return request.headers
        return {**request.headers, "Authorization": f"Bearer {self.api_key}"}

    def away(self, error: Exception) -> Unreachable:
        """Why there is no answer."""
        return Unreachable(f"{self.base} does not answer: {str(error) or 'it took too long'}")


class AsyncTrackingClient(AsyncMethods):
    """
    Talks to one service over HTTP, for coroutines. One client serves any number of tasks.

    Args:
        url: Where it is, ``http://`` or ``https://``.
        api_key: With the scope that the calls need, where the service has keys.
        retry_for_s: How long a call is tried again; less than the service's
            ``idempotency_window``, or an event may be stored twice.
        validation_rules: Dotted paths of the service's own rules, for :meth:`validate_event`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        retry_for_s: float = RETRY_FOR_S,
        validation_rules: Sequence[str] = (),
    ) -> None:
        super().__init__(retry_for_s, validation_rules)
        self._service = _Service(url, api_key)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Return when every call is answered, and let go of the connections."""
        await self._all_answered()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, request: Request) -> Response:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.request(
                request.method,
                self._service.base + request.path,
                data=request.body or None,
                headers=self._service.headers(request),
                timeout=aiohttp.ClientTimeout(total=request.within_s),
                allow_redirects=False,
            ) as answer:
                return Response(answer.status, dict(answer.headers), await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._service.away(error) from None

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
                    self._service.socket_url, compression=None, max_size=_MAX_MESSAGE_BYTES
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
        if (key := self._service.api_key) is not None:
            await socket.send(json.dumps({"action": "authenticate", "token": key}))
        asked = {"action": "subscribe_campaign", "campaignId": campaign_id, "detailed": detailed}
        await socket.send(json.dumps(asked | ({"cursor": cursor} if cursor else {})))


class TrackingClient:
    """
    The same for programs without an event loop: each call returns when it is answered. One
    client serves any number of threads. The arguments are those of :class:`AsyncTrackingClient`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        retry_for_s: float = RETRY_FOR_S,
        validation_rules: Sequence[str] = (),
    ) -> None:
        self._service = _Service(url, api_key)
        self._patience = patience(retry_for_s)
        self._validator = Validator(validation_rules)
        self._pool = urllib3.PoolManager(maxsize=16)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()

    def process_event(
        self,
        event_data: Mapping[str, Any],
        event_type: EventType | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> ProcessingResult:
        """As :meth:`AsyncMethods.process_event`."""
        return self._do(calls.process_event(event_data, event_type, metadata, self._patience))

    def process_event_batch(self, events: Sequence[Mapping[str, Any]]) -> BatchResult:
        """As :meth:`AsyncMethods.process_event_batch`."""
        return self._do(calls.process_event_batch(events, self._patience))

    def replay_events(
        self,
        campaign_id: str,
        start: datetime | str,
        end: datetime | str,
        *,
        event_types: Sequence[EventType | str] | None = None,
        batch_size: int = 1000,
        reprocess_analytics: bool = True,
        broadcast_updates: bool = False,
    ) -> ReplayStarted:
        """As :meth:`AsyncMethods.replay_events`."""
        options = wire.replay_options(
            event_types, batch_size, reprocess_analytics, broadcast_updates
        )
        key = uuid4().hex
        return self._do(calls.replay_events(campaign_id, start, end, options, key, self._patience))

    def get_processing_stats(self) -> ProcessingStats:
        """As :meth:`AsyncMethods.get_processing_stats`."""
        return self._do(calls.stats(self._patience))

    def get_total_buffered_events(self) -> int:
        """As :meth:`AsyncMethods.get_total_buffered_events`."""
        return self.get_processing_stats().buffer_size

    def perform_health_check(self) -> HealthStatus:
        """As :meth:`AsyncMethods.perform_health_check`."""
        return self._do(calls.health(self._patience))

    def check_database_health(self) -> ComponentHealth:
        """How Postgres is."""
        return self.perform_health_check().component("database")

    def check_redis_health(self) -> ComponentHealth:
        """How the event log is."""
        return self.perform_health_check().component("redis")

    def check_queue_health(self) -> ComponentHealth:
        """How much waits."""
        return self.perform_health_check().component("queues")

    def check_memory_health(self) -> ComponentHealth:
        """What the processes take."""
        return self.perform_health_check().component("memory")

    def check_websocket_health(self) -> ComponentHealth:
        """How live updates are."""
        return self.perform_health_check().component("websocket")

    def validate_event(
        self,
        event_data: Mapping[str, Any],
        event_type: EventType | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Validation:
        """Whether the service would take an event. Nothing is sent, and nobody is asked."""
        return self._validator(event_data, event_type, metadata)

    def watch(
        self, campaign_id: str, *, detailed: bool = False, cursor: str | None = None
    ) -> Iterator[Update]:
        """As :meth:`AsyncTrackingClient.watch`; not where an event loop runs."""
        client = AsyncTrackingClient(self._service.base, self._service.api_key)
        with asyncio.Runner() as runner:
            updates = client.watch(campaign_id, detailed=detailed, cursor=cursor)
            while True:
                yield runner.run(_following(updates))

    def _do(self, plan: Plan[T]) -> T:
        return carry_out_here(plan, self._send)

    def _send(self, request: Request) -> Response:
        try:
            answer = self._pool.request(
                request.method,
                self._service.base + request.path,
                body=request.body or None,
                headers=self._service.headers(request),
                timeout=urllib3.Timeout(connect=request.within_s, read=request.within_s),
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._service.away(error) from None
        return Response(answer.status, dict(answer.headers), answer.data)


async def _following(updates: AsyncIterator[Update]) -> Update:
    return await anext(updates)


def _check(error: dict[str, Any]) -> None:
    if error["code"] == "bad_request":
        raise WatchRefused(error["message"])
    if error["code"] in ("unauthenticated", "forbidden"):
        raise AccessRefused(error["message"])
