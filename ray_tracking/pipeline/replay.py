"""A replay: what is asked for, and what it is called while it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ray_tracking.pipeline.rows import iso_utc

MAX_BATCH_SIZE = 100_000
#: After so many beginnings without an end it is given up.
MAX_BEGINNINGS = 50


class ReplayStatus(StrEnum):
    """As Ray calls the states of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """
    Which events of a campaign, and what is done with them.

    The span is half-open, on the events' own times.
    """

    campaign_id: str
    since: datetime
    until: datetime
    #: None for all.
    event_types: tuple[str, ...] | None = None
    batch_size: int = 1000
    reprocess_analytics: bool = True
    broadcast_updates: bool = False


def show(replay: Mapping[str, Any]) -> dict[str, Any]:
    """A replay as the API shows it, from its columns."""
    return {
        "replayJobId": replay["id"],
        "campaignId": replay["campaign_id"],
        "status": replay["status"],
        "processed": replay["processed"],
        "estimatedEvents": replay["estimated_events"],
        "startedAt": _time(replay["started_at"]),
        "finishedAt": _time(replay["finished_at"]),
        "error": replay["error"],
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)
