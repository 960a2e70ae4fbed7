"""Events on their way: made by the real validator and the real router."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from itertools import count
from typing import Any

from ray_tracking.pipeline.route import Router, Submission, event_ids, partition_of
from ray_tracking.pipeline.validate import validate_item

SECRET = b"tests only, 16 b"

_serial = count(1)


def now_iso() -> str:
    """This moment, as a caller writes it."""
    moment = datetime.now(UTC)
    # Never a whole millisecond: answers spell that otherwise.
    moment = moment.replace(microsecond=moment.microsecond | 1)
    return moment.isoformat().replace("+00:00", "Z")


def item(event_type: str = "EMAIL_OPEN", **data: Any) -> dict[str, Any]:
    """
    One item as it comes over the API, unlike every other unless the ids are given.

    A field that is given as None is left out.
    """
    serial = next(_serial)
    fields: dict[str, Any] = {
        "campaignId": "c1",
        "leadId": f"lead-{serial}",
        "emailId": f"mail-{serial}",
        "timestamp": now_iso(),
    }
    if event_type == "LINK_CLICK":
        fields["linkUrl"] = "https://example.com/offer"
    elif event_type == "EMAIL_BOUNCE":
        fields["bounceType"] = "hard"
    elif event_type == "CAMPAIGN_STATUS_CHANGE":
        fields = {"campaignId": "c1", "timestamp": fields["timestamp"], "newStatus": "paused"}
    elif event_type == "ACCOUNT_HEALTH_UPDATE":
        fields = {"accountId": f"account-{serial}", "timestamp": fields["timestamp"]}
    fields |= data
    present = {name: value for name, value in fields.items() if value is not None}
    return {"eventType": event_type, "eventData": present}


def submission(
    event_type: str = "EMAIL_OPEN",
    *,
    partitions: int,
    received_ms: int | None = None,
    single: bool = False,
    token: str | None = None,
    **data: Any,
) -> Submission:
    """
    One event ready for its shard.

    Args:
        event_type: Of which type.
        partitions: How many the log has.
        received_ms: When it came in; now, if not given.
        single: It came alone, not in a batch.
        token: That of a pixel or click hit.
        data: Fields of ``eventData``.
    """
    now_ms = time.time_ns() // 1_000_000
    (minted,) = event_ids(received_ms if received_ms is not None else now_ms, os.urandom(16))
    event = validate_item(item(event_type, **data), now_s=now_ms / 1000)
    return Router(partitions, SECRET).route(event, minted, single=single, token=token)


def campaign_in(partition: int, partitions: int, name: str = "campaign") -> str:
    """A campaign that belongs to a partition."""
    names = (f"{name}-{number}" for number in count())
    return next(name for name in names if partition_of(name, partitions) == partition)
