"""A plan for each method: what is asked, and what the answer is in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ray_tracking.api import wire
from ray_tracking.api.answers import (
    BatchResult,
    FieldError,
    HealthStatus,
    ItemError,
    ProcessingResult,
    ProcessingStats,
    Refusable,
    ReplayStarted,
    TypeCounts,
)
from ray_tracking.api.attempts import Failed, Patience, Plan, Reply, Request, ask
from ray_tracking.errors import AccessRefused, InvalidEvent, Unreachable
from ray_tracking.events import EventType
from ray_tracking.pipeline.answer import INVALID, LIMITED

_JSON = {"Content-Type": "application/json"}
_AWAY = "The service cannot be reached"
#: Of what is counted once an item's fate is known, and of what it may be asked again for.
_SETTLED = ("processed", "duplicates", "invalid")
_OPEN = ("rate_limited", "overloaded")

R = TypeVar("R", bound=Refusable)


def process_event(
    data: Mapping[str, Any],
    event_type: EventType | str,
    metadata: Mapping[str, Any] | None,
    patience: Patience,
) -> Plan[ProcessingResult]:
    """One event, until it is durable or refused."""
    try:
        body = wire.event(data, event_type, metadata)
    except InvalidEvent as error:
        return ProcessingResult(success=False, error=INVALID, details=_details(error))
    reply = yield from ask(Request("POST", "/events", body, _JSON), patience)
    return _result(ProcessingResult, reply)


def process_event_batch(items: Sequence[Any], patience: Patience) -> Plan[BatchResult]:
    """A batch, until each item is durable or refused; only what may yet pass is sent again."""
    merged = _Merged(items)
    attempts = patience.begin()
    # A batch of nothing is refused by the service as well.
    while merged.left or not items:
        body = wire.batch_of([merged.left[index] for index in merged.left])
        said = yield attempts.timed(Request("POST", "/events/batch", body, _JSON, 30.0))
        assert said is not None
        if isinstance(said, Reply):
            if not said.is_for_now and "processed" not in said.value:
                return _result(BatchResult, said)
            merged.take(said)
            if not merged.left:
                break
        pause = attempts.pause(merged.wait_s if isinstance(said, Reply) else None)
        if pause is None:
            if isinstance(said, Failed) and not merged.is_settled:
                raise Unreachable(said.reason)
            break
        yield pause
    return merged.result()


def replay_events(
    campaign_id: str, start: Any, end: Any, options: Mapping[str, Any], key: str, patience: Patience
) -> Plan[ReplayStarted]:
    """Ask for a replay; the same key is the same replay."""
    try:
        body = wire.replay(campaign_id, start, end, options)
    except InvalidEvent as error:
        return ReplayStarted(success=False, error=INVALID, details=_details(error))
    request = Request("POST", "/replays", body, {**_JSON, "Idempotency-Key": key})
    return _result(ReplayStarted, (yield from ask(request, patience)))


def stats(patience: Patience) -> Plan[ProcessingStats]:
    """
    ProcessingStats.

    Raises:
        AccessRefused: The key does not open it.
        Unreachable: Nobody can tell.
    """
    reply = yield from ask(Request("GET", "/metrics/tracking"), patience)
    return msgspec.convert(_told(reply, "uptime"), ProcessingStats)


def health(patience: Patience) -> Plan[HealthStatus]:
    """HealthStatus; an unhealthy one is an answer like any other. Raises as :func:`stats`."""
    reply = yield from ask(Request("GET", "/health/tracking"), patience, "overall")
    return msgspec.convert(_told(reply, "overall"), HealthStatus)


def _told(reply: Reply, mark: str) -> dict[str, Any]:
    """The answer to a question that has no room for a refusal."""
    if mark in reply.value:
        return reply.value
    reason = f"it answered {reply.status}: {reply.value.get('error', 'no reason given')}"
    if reply.status in (401, 403):
        raise AccessRefused(reason)
    raise Unreachable(reason)


def _result(kind: type[R], reply: Reply) -> R:
    value = reply.value
    if "success" not in value:
        text = value.get("error", "not as this service does")
        value = {"success": False, "error": f"it answered {reply.status}: {text}"}
    if not value["success"]:
        value = {**value, "retryAfter": reply.retry_after_s}
    return msgspec.convert(value, kind)


def _details(error: InvalidEvent) -> list[FieldError]:
    return [FieldError(field=field, message=message) for field, message in error.details]


class _Merged:
    """
    The answers to the parts of one batch, as if they were one.

    Args:
        items: Of the batch.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        #: What has no fate yet, encoded, by its index; and why it was not taken.
        self.left: dict[int, bytes] = {}
        self._open: dict[int, ItemError] = {}
        #: As the last answer said it.
        self._refusal: str | None = None
        self.wait_s: int | None = None
        self._errors: list[ItemError] = []
        self._totals: dict[str, Any] = dict.fromkeys((*_SETTLED, "broadcasted"), 0)
        self._by_type: dict[str | None, dict[str, int]] = {}
        self._took_ms = 0.0
        self._fallback = False
        for index, item in enumerate(items):
            try:
                self.left[index] = wire.batch_item(item)
            except InvalidEvent as error:
                self._errors.append(ItemError(index=index, error=INVALID, details=_details(error)))
                self._count(wire.item_type(item), "invalid")

    @property
    def is_settled(self) -> bool:
        """Whether the fate of any item is known."""
        return len(self.left) < len(self._items)

    def _count(self, kind: str | None, what: str, number: int = 1) -> None:
        counts = self._by_type.setdefault(kind, dict.fromkeys((*_SETTLED, *_OPEN), 0))
        counts[what] += number
        if what in self._totals:
            self._totals[what] += number

    def take(self, reply: Reply) -> None:
        """An answer to what was left."""
        value = reply.value
        self.wait_s = reply.retry_after_s
        self._refusal = value.get("error")
        if "processed" not in value:
            return  # refused unread
        answer = msgspec.convert(value, BatchResult)
        sent = list(self.left)
        self._open = {}
        for error in answer.errors:
            error = msgspec.structs.replace(error, index=sent[error.index])
            if error.retry_after is None:
                self._errors.append(error)
            else:
                self._open[error.index] = error
        self.left = {index: self.left[index] for index in self._open}
        waits = [error.retry_after or 0 for error in self._open.values()]
        self.wait_s = max([*waits, reply.retry_after_s or 0])
        for kind in answer.breakdown:
            for what in _SETTLED:
                if number := getattr(kind, what):
                    self._count(kind.event_type, what, number)
        self._totals["broadcasted"] += answer.broadcasted
        self._took_ms += answer.processing_time
        self._fallback |= answer.fallback

    def result(self) -> BatchResult:
        """What became of all of it."""
        for index in self.left:
            known = self._open.get(index)
            error = known or ItemError(index=index, error=self._refusal or _AWAY, retry_after=1)
            self._errors.append(error)
            limited = known is not None and known.error == LIMITED
            kind = wire.item_type(self._items[index])
            self._count(kind, "rate_limited" if limited else "overloaded")
        open_counts: dict[str, Any] = {
            what: sum(counts[what] for counts in self._by_type.values()) for what in _OPEN
        }
        success = bool(self._totals["processed"] or self._totals["duplicates"])
        whole = len(self.left) == len(self._items) and self._items
        return BatchResult(
            success=success,
            error=self._errors[0].error if whole else None,
            retry_after=self.wait_s if self.left else None,
            **self._totals,
            **open_counts,
            processing_time=self._took_ms,
            breakdown=[
                TypeCounts(event_type=kind, **counts) for kind, counts in self._by_type.items()
            ],
            errors=sorted(self._errors, key=lambda error: error.index),
            fallback=self._fallback,
        )
