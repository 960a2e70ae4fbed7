"""
Dead letters: events that Postgres refused for what they are, shown to people and sent
again.

A letter sent again is the same event: its id, identity and row are those of the first
time, and :data:`~ray_tracking.pipeline.route.REDRIVE` leads it past dedup and rate.
Whether it becomes a row is decided where the letter is, by the flush that finds it still
dead; so sending one twice is harmless.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.answer import retry_after_s
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.route import REDRIVE, Submission
from ray_tracking.pipeline.rows import decode_row, event_data, iso_utc

_LOOK_BACK = timedelta(seconds=5)

NOT_TAKEN = "The log cannot take it now; come again"


class LetterStatus(StrEnum):
    """What has become of a letter."""

    DEAD = "dead"
    #: Sent again, and a row.
    REDRIVEN = "redriven"
    #: Given up. It can never become a row, also when it is on its way through the log.
    DISCARDED = "discarded"


class NewLetters:
    """
    Which letters have failed since somebody looked last.

    A letter is dated by the transaction that wrote it, and others may be committed before it;
    so each look goes back a little, and passes over what was seen.

    Args:
        now: By the clock of Postgres.
    """

    def __init__(self, now: datetime) -> None:
        self._until = now
        self._seen: dict[tuple[UUID, int], datetime] = {}

    @property
    def since(self) -> datetime:
        """Where to look from."""
        return self._until - _LOOK_BACK

    def of(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those that are new among the letters found from there on."""
        new = []
        for row in rows:
            # One that was sent again and failed again is new.
            key = row["id"], row["attempts"]
            self._until = max(self._until, row["failed_at"])
            if key not in self._seen:
                self._seen[key] = row["failed_at"]
                new.append(row)
        self._seen = {key: at for key, at in self._seen.items() if at >= self.since}
        return new


def show(columns: Mapping[str, Any]) -> dict[str, Any]:
    """
    A letter as the API shows it, from the columns of ``dead_letters``.

    An event that cannot be read is shown all the same: ``eventData`` is null, and
    ``raw`` has the bytes of its row.
    """
    data = _read_event(columns["encoded_row"])
    letter = {
        "id": str(columns["id"]),
        "eventType": columns["event_type"],
        "eventData": data,
        "failureReason": columns["failure_reason"],
        "failedAt": iso_utc(columns["failed_at"]),
        "attempts": columns["attempts"],
        "position": {
            "partition": columns["log_partition"],
            "lane": columns["log_lane"],
            "position": f"{columns['log_epoch']}-{columns['log_seq']}",
            "index": columns["log_index"],
        },
        "status": columns["status"],
        "campaignId": columns["campaign_id"],
        "firstFailedAt": iso_utc(columns["first_failed_at"]),
        "sqlstate": columns["sqlstate"],
    }
    if data is None:
        letter["raw"] = base64.b64encode(columns["encoded_row"]).decode()
    return letter


def _read_event(row: bytes) -> dict[str, Any] | None:
    try:
        data = event_data(decode_row(row))
        # Lone surrogates and NaN can be read, but are nothing that an answer can hold.
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except Exception:  # whatever it is: the letter exists because its row is odd
        return None
    return data


def resubmit(columns: Mapping[str, Any]) -> Submission:
    """A letter on its way to the log again, from the columns of ``dead_letters``."""
    # A parked hit has waited for its campaign's rate once already.
    lane = Lane.HIGH if columns["log_lane"] == Lane.HIGH else Lane.NORMAL
    return Submission(
        columns["log_partition"],
        columns["routing_key"],
        LANES.index(lane),
        columns["flags"] | REDRIVE,
        columns["id"].bytes,
        columns["digest"],
        columns["occurred_us"],
        columns["encoded_row"],
    )


@dataclass
class RedriveRun:
    """
    Many letters sent again, some at a time: what may go, and what became of it.

    A partition whose log has refused a letter is not asked again in the same run, where
    each further letter might wait as long as the first one did.
    """

    redriven: int = 0
    failed: int = 0
    wait_s: float = 0.0
    _refusing: set[int] = field(default_factory=set)

    def choose(self, submissions: Iterable[Submission]) -> list[Submission]:
        """Those that may go to the log; the others have failed."""
        found = list(submissions)
        chosen = [one for one in found if one.partition not in self._refusing]
        self.failed += len(found) - len(chosen)
        return chosen

    def settle(self, submissions: Sequence[Submission], outcomes: Sequence[Outcome]) -> None:
        """The chosen ones have their outcomes."""
        for submission, outcome in zip(submissions, outcomes, strict=True):
            if outcome.verdict is Verdict.ACCEPTED:
                self.redriven += 1
            else:
                self.failed += 1
                self.wait_s = max(self.wait_s, outcome.retry_after_s)
                self._refusing.add(submission.partition)

    def answer(self, idempotency_window_ms: int) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Status, body and headers. A run that found no letters is a success."""
        body: dict[str, Any] = {
            "success": bool(self.redriven or not self.failed),
            "redriven": self.redriven,
            "failed": self.failed,
        }
        if not self.failed:
            return 202, body, {}
        wait = retry_after_s(self.wait_s, idempotency_window_ms)
        body |= {"error": NOT_TAKEN, "retryAfter": wait}
        return (207 if self.redriven else 503), body, {"Retry-After": str(wait)}
