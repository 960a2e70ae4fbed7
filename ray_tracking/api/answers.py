"""
What the methods of the clients and of the processor return.

Each field can be had as an attribute, by its name in Python, or as an item, by either name:
``result.event_id``, ``result["event_id"]`` and ``result["eventId"]`` are the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ray_tracking.pipeline.modes import Mode


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields by attribute and by item."""

    def __getitem__(self, name: str) -> Any:
        for field, on_the_wire in zip(
            self.__struct_fields__, self.__struct_encode_fields__, strict=True
        ):
            if name in (field, on_the_wire):
                return getattr(self, field)
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """A field by either name."""
        try:
            return self[name]
        except KeyError:
            return default

    def keys(self) -> tuple[str, ...]:
        """The names on the wire, so that ``dict(answer)`` and ``**answer`` work."""
        return self.__struct_encode_fields__

    def to_dict(self) -> dict[str, Any]:
        """As it is on the wire: names in camelCase, values as JSON has them."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


class FieldError(Answer, frozen=True, kw_only=True):
    """What is wrong with one field; the field is empty where it is the whole."""

    field: str
    message: str


class Refusable(Answer, frozen=True, kw_only=True):
    """
    What may also be refused.

    ``success`` is false then, ``error`` says why, ``details`` names the fields that are wrong,
    and ``retry_after`` is in how many seconds the same may succeed; None: never.
    """

    success: bool
    error: str | None = None
    details: list[FieldError] = []
    retry_after: int | None = None


class Place(Answer, frozen=True, kw_only=True):
    """Where an event stands in the log."""

    partition: int
    lane: str
    position: str
    index: int


class ProcessingResult(Refusable, frozen=True, kw_only=True):
    """
    What became of one event.

    With ``success`` it is durable: in the log, or, with ``fallback``, in the spool of a node
    (``result`` is None then). A ``duplicate`` is a success: it was taken before, perhaps by an
    earlier attempt of the same call. ``processing_time`` is in milliseconds.
    """

    event_id: str | None = None
    mode: Mode | None = None
    duplicate: bool = False
    result: Place | None = None
    processing_time: float | None = None
    fallback: bool = False


class TypeCounts(Answer, frozen=True, kw_only=True):
    """What became of a batch's events of one type; the type is None where it is none of ours."""

    event_type: str | None
    processed: int = 0
    duplicates: int = 0
    invalid: int = 0
    rate_limited: int = 0
    overloaded: int = 0


class ItemError(Answer, frozen=True, kw_only=True):
    """Why the item at ``index`` was refused."""

    index: int
    error: str
    details: list[FieldError] = []
    retry_after: int | None = None


class BatchResult(Refusable, frozen=True, kw_only=True):
    """
    What became of a batch. The five counts add up to its items, unless the batch was refused
    as a whole. ``success`` is false when nothing was processed and nothing a duplicate.
    """

    processed: int = 0
    duplicates: int = 0
    invalid: int = 0
    rate_limited: int = 0
    overloaded: int = 0
    broadcasted: int = 0
    processing_time: float = 0.0
    breakdown: list[TypeCounts] = []
    errors: list[ItemError] = []
    fallback: bool = False


class ReplayStarted(Refusable, frozen=True, kw_only=True):
    """A replay that goes on by itself, as the Ray job ``replay_job_id``."""

    replay_job_id: str | None = None
    estimated_events: int | None = None
    message: str | None = None


class Validation(Answer, frozen=True, kw_only=True):
    """Whether the service would take an event for what it is."""

    valid: bool
    errors: list[FieldError] = []


class ProcessingStats(Answer, frozen=True, kw_only=True):
    """
    The whole cluster in figures.

    Times are in milliseconds, throughput in events per second, memory in bytes, ``uptime`` in
    seconds. What stands in a dictionary has its names in camelCase.
    """

    events_processed: int = 0
    average_processing_time: float = 0.0
    current_throughput: float = 0.0
    peak_throughput: float = 0.0
    batches_processed: int = 0
    duplicates_detected: int = 0
    dedup_evicted_early: int = 0
    validation_errors: int = 0
    processing_errors: int = 0
    rate_limited: int = 0
    backpressure_events: int = 0
    backpressure_level: str = "normal"
    processing_mode: Mode = Mode.HYBRID
    memory_usage: dict[str, Any] = {}
    queue_depth: int = 0
    buffer_size: int = 0
    log_lag: int = 0
    spooled: int = 0
    parked: int = 0
    dead_letters: int = 0
    tracking_unconfirmed: int = 0
    tracking_lost: int = 0
    initialized: bool = False
    running: bool = False
    uptime: float = 0.0
    redis_status: dict[str, Any] = {}
    circuit_breakers: dict[str, Any] = {}


class HealthStatus(Answer, frozen=True, kw_only=True):
    """
    How the service is: ``overall`` is ``healthy``, ``degraded`` or ``unhealthy``, and each
    component has a ``status`` of its own, an ``error`` where something is wrong, and figures.
    """

    timestamp: str = ""
    overall: str
    components: dict[str, dict[str, Any]] = {}

    def component(self, name: str) -> ComponentHealth:
        """One component; ``unknown`` if the service says nothing of it."""
        figures = dict(self.components.get(name, _UNKNOWN))
        return ComponentHealth(
            name=name,
            status=figures.pop("status"),
            error=figures.pop("error", None),
            figures=figures,
        )


_UNKNOWN = {"status": "unknown", "error": "the service does not say"}


class ComponentHealth(Answer, frozen=True, kw_only=True):
    """How one component is. ``figures`` are those of its part of the health page."""

    name: str
    status: str
    error: str | None = None
    figures: dict[str, Any] = {}


class DeadLetter(Answer, frozen=True, kw_only=True):
    """An event that Postgres refused for what it is, kept as it was."""

    id: str
    event_type: str
    event_data: dict[str, Any] | None
    failure_reason: str
    failed_at: str
    attempts: int
    position: dict[str, Any]
    status: str
    campaign_id: str | None = None
