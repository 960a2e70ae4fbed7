"""The methods that :class:`AsyncTrackingClient` and :class:`TrackingEventProcessor` share."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

from ray_tracking.api import calls, wire
from ray_tracking.api.answers import (
    BatchResult,
    ComponentHealth,
    FieldError,
    HealthStatus,
    ProcessingResult,
    ProcessingStats,
    ReplayStarted,
    Validation,
)
from ray_tracking.api.attempts import Patience, Plan, Request, Response
from ray_tracking.api.carriers import carry_out
from ray_tracking.events import EventType
from ray_tracking.sources.rules import load_rules

T = TypeVar("T")


class Validator:
    """
    Says what is wrong with an event, without asking anybody.

    Args:
        validation_rules: Dotted paths of the service's own rules, ``mypkg.rules:my_rule``.
    """

    def __init__(self, validation_rules: Sequence[str] = ()) -> None:
        self._rules = load_rules(validation_rules)

    def __call__(
        self,
        data: Mapping[str, Any],
        event_type: EventType | str,
        metadata: Mapping[str, Any] | None,
    ) -> Validation:
        problems = wire.problems(data, event_type, metadata, now_s=time.time(), rules=self._rules)
        errors = [FieldError(field=field, message=message) for field, message in problems]
        return Validation(valid=not errors, errors=errors)


def patience(retry_for_s: float) -> Patience:
    """Patience by the clock of this process."""
    return Patience(retry_for_s, time.monotonic, random.random)


class AsyncMethods:
    """
    Every call on the service, for coroutines.

    Each of them raises :class:`~ray_tracking.errors.Unreachable` if no service has answered in
    ``retry_for_s``. What the service refuses is no exception: the result says ``success=False``.

    Args:
        retry_for_s: How long a call is tried again.
        validation_rules: As for :class:`Validator`.
    """

    def __init__(self, retry_for_s: float, validation_rules: Sequence[str] = ()) -> None:
        self._patience = patience(retry_for_s)
        self._validator = Validator(validation_rules)
        self._under_way = 0
        self._idle = asyncio.Event()

    async def _send(self, request: Request) -> Response:
        """Send a request. Raises :class:`Unreachable` if there is no response."""
        raise NotImplementedError

    def _check(self) -> None:
        """Raise if nothing can be sent now."""

    async def process_event(
        self,
        event_data: Mapping[str, Any],
        event_type: EventType | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> ProcessingResult:
        """
        Have one event stored. With ``success`` it is durable.

        Args:
            event_data: The fields of its type, in snake_case or camelCase.
            event_type: Which type.
            metadata: ``{"priority": "high"}`` to have it overtake others.
        """
        return await self._do(calls.process_event(event_data, event_type, metadata, self._patience))

    async def process_event_batch(self, events: Sequence[Mapping[str, Any]]) -> BatchResult:
        """
        Have up to 10,000 events stored, each with a fate of its own.

        Args:
            events: ``{"data": …, "event_type": …, "metadata"?: …}`` each.
        """
        return await self._do(calls.process_event_batch(events, self._patience))

    async def replay_events(
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
        """
        Have a campaign counted anew, as a Ray job.

        Args:
            campaign_id: Which campaign.
            start: Of the span of the events' own times, which is half-open.
            end: Of that span.
            event_types: These types only.
            batch_size: Events in one transaction.
            reprocess_analytics: Show the new figures; else count only.
            broadcast_updates: Has no effect of its own: live clients of the campaign are told of
                corrected figures in any case.
        """
        options = wire.replay_options(
            event_types, batch_size, reprocess_analytics, broadcast_updates
        )
        plan = calls.replay_events(campaign_id, start, end, options, uuid4().hex, self._patience)
        return await self._do(plan)

    async def get_processing_stats(self) -> ProcessingStats:
        """The whole cluster in figures. Raises :class:`AccessRefused` as all below do."""
        return await self._do(calls.stats(self._patience))

    async def get_total_buffered_events(self) -> int:
        """Events in memory, of the whole cluster, that are not in the log yet."""
        return (await self.get_processing_stats()).buffer_size

    async def perform_health_check(self) -> HealthStatus:
        """How the service is, part by part."""
        return await self._do(calls.health(self._patience))

    async def check_database_health(self) -> ComponentHealth:
        """How Postgres is."""
        return (await self.perform_health_check()).component("database")

    async def check_redis_health(self) -> ComponentHealth:
        """How the event log is."""
        return (await self.perform_health_check()).component("redis")

    async def check_queue_health(self) -> ComponentHealth:
        """How much waits."""
        return (await self.perform_health_check()).component("queues")

    async def check_memory_health(self) -> ComponentHealth:
        """What the processes take."""
        return (await self.perform_health_check()).component("memory")

    async def check_websocket_health(self) -> ComponentHealth:
        """How live updates are."""
        return (await self.perform_health_check()).component("websocket")

    async def validate_event(
        self,
        event_data: Mapping[str, Any],
        event_type: EventType | str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Validation:
        """Whether the service would take an event. Nothing is sent, and nobody is asked."""
        return self._validator(event_data, event_type, metadata)

    async def _do(self, plan: Plan[T]) -> T:
        self._check()
        self._under_way += 1
        self._idle.clear()
        try:
            return await carry_out(plan, self._send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _all_answered(self) -> None:
        """Return when no call is under way."""
        while self._under_way:
            await self._idle.wait()
