"""What a caller is told: outcomes and refusals as the API's bodies and statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import LANES, EventType
from ray_tracking.pipeline.gather import Outcome, Verdict

INVALID = "Event validation failed"
LIMITED = "Rate limit exceeded"
OVERLOADED = "The service cannot take this event now"

_COUNTS = ("processed", "duplicates", "invalid", "rateLimited", "overloaded")
#: It is durable, or was before.
TAKEN = frozenset({Verdict.ACCEPTED, Verdict.SPOOLED, Verdict.DUPLICATE})
_COUNT_OF = {
    Verdict.ACCEPTED: "processed",
    Verdict.SPOOLED: "processed",
    Verdict.DUPLICATE: "duplicates",
    Verdict.LIMITED: "rateLimited",
    Verdict.UNAVAILABLE: "overloaded",
    Verdict.AWAY: "overloaded",
    Verdict.FULL: "overloaded",
}
#: A batch all of whose items were refused for this one reason has this status.
_WHOLLY_REFUSED = {"rateLimited": (429, LIMITED), "overloaded": (503, OVERLOADED)}


def retry_after_s(wait_s: float, idempotency_window_ms: int) -> int:
    """
    The integer of a ``Retry-After``: at least 1, and never past the idempotency window.

    A client that came back after the window could not be recognised any more.
    """
    return max(1, min(math.ceil(wait_s), idempotency_window_ms // 1000))


def invalid(error: InvalidEvent) -> dict[str, Any]:
    """The body of a 422."""
    return {"success": False, "error": INVALID, "details": _details(error)}


def processing_result(
    outcome: Outcome, event_id: str, mode: str, elapsed_ms: float
) -> dict[str, Any]:
    """
    The ProcessingResult of an accepted event or a duplicate.

    Args:
        outcome: What became of it.
        event_id: What the answer calls it: the caller's id, else ours.
        mode: How it is processed.
        elapsed_ms: Since the request came in.
    """
    result = {
        "success": True,
        "eventId": event_id,
        "mode": mode,
        "duplicate": outcome.verdict is Verdict.DUPLICATE,
        "result": _place(outcome),
        "processingTime": round(elapsed_ms, 3),
    }
    if outcome.verdict is Verdict.SPOOLED:
        result["fallback"] = True
    return result


def public_id(given: str | None, minted: bytes, outcome: Outcome) -> str:
    """
    The id that an answer shows: the caller's own, else ours; a duplicate has its first's.
    """
    return given or str(UUID(bytes=outcome.first_id or minted))


def _place(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.position is None:
        return None
    partition, lane, epoch, seq, index = outcome.position
    return {
        "partition": partition,
        "lane": LANES[lane],
        "position": f"{epoch}-{seq}",
        "index": index,
    }


def _details(error: InvalidEvent) -> list[dict[str, str]]:
    return [{"field": name, "message": message} for name, message in error.details]


@dataclass
class BatchReport:
    """
    Counts what became of each item of a batch, overall and by type.

    Args:
        idempotency_window_ms: Bounds what an item's ``retryAfter`` says.
    """

    idempotency_window_ms: int
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    by_type: dict[EventType | None, dict[str, int]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    longest_wait_s: float = 0.0
    spooled: int = 0

    def refuse(self, index: int, event_type: EventType | None, error: InvalidEvent) -> None:
        """An item was not valid."""
        self._count("invalid", event_type)
        self.errors.append({"index": index, "error": INVALID, "details": _details(error)})

    def settle(self, index: int, event_type: EventType, outcome: Outcome) -> None:
        """A valid item has its outcome."""
        self._count(_COUNT_OF[outcome.verdict], event_type)
        self.spooled += outcome.verdict is Verdict.SPOOLED
        if outcome.verdict not in TAKEN:
            self.longest_wait_s = max(self.longest_wait_s, outcome.retry_after_s)
            text = LIMITED if outcome.verdict is Verdict.LIMITED else OVERLOADED
            wait = retry_after_s(outcome.retry_after_s, self.idempotency_window_ms)
            self.errors.append({"index": index, "error": text, "retryAfter": wait})

    def answer(self, elapsed_ms: float) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Status, body and headers."""
        totals = self.totals
        items = sum(totals.values())
        refused = items - totals["processed"] - totals["duplicates"]
        self.errors.sort(key=lambda error: int(error["index"]))
        body: dict[str, Any] = {
            "success": refused < items,
            **totals,
            "broadcasted": totals["processed"] - self.spooled,
            "processingTime": round(elapsed_ms, 3),
            "breakdown": [{"eventType": kind, **counts} for kind, counts in self.by_type.items()],
            "errors": self.errors,
        }
        if self.spooled:
            body["fallback"] = True
        for reason, (status, text) in _WHOLLY_REFUSED.items():
            if totals[reason] == items:
                wait = retry_after_s(self.longest_wait_s, self.idempotency_window_ms)
                return status, {**body, "error": text}, {"Retry-After": str(wait)}
        return (207 if refused else 200), body, {}

    def _count(self, what: str, event_type: EventType | None) -> None:
        counts = self.by_type.get(event_type)
        if counts is None:
            counts = self.by_type[event_type] = dict.fromkeys(_COUNTS, 0)
        counts[what] += 1
        self.totals[what] += 1
