"""One formula for each figure of a campaign, wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ray_tracking.pipeline.rows import iso_utc


def campaign_stats(
    campaign_id: str, counts: Mapping[str, Any], *, as_of: datetime
) -> dict[str, Any]:
    """
    A campaign's figures as the API shows them.

    Totals and uniques leave machines out; those stand beside them. Rates are
    fractions of what was delivered, or sent where nothing was reported delivered,
    and None where there is nothing to divide by.

    Args:
        campaign_id: Whose.
        counts: The plain counts, with ``first_event_at`` and ``last_event_at``.
        as_of: When they were read.
    """
    reached = counts["delivered"] or counts["sent"]
    return {
        "campaignId": campaign_id,
        "sent": counts["sent"],
        "delivered": counts["delivered"],
        "opens": counts["opens"],
        "uniqueOpens": counts["unique_opens"],
        "clicks": counts["clicks"],
        "uniqueClicks": counts["unique_clicks"],
        "replies": counts["replies"],
        "uniqueReplies": counts["unique_replies"],
        "bounces": {name: counts[name] for name in ("hard", "soft", "complaint", "suppression")},
        "machineOpens": counts["machine_opens"],
        "machineClicks": counts["machine_clicks"],
        "rates": {
            "open": _rate(counts["unique_opens"], reached),
            "click": _rate(counts["unique_clicks"], reached),
            "reply": _rate(counts["unique_replies"], reached),
            "bounce": _rate(counts["hard"] + counts["soft"], counts["sent"]),
            "complaint": _rate(counts["complaint"], reached),
        },
        "firstEventAt": _time(counts["first_event_at"]),
        "lastEventAt": _time(counts["last_event_at"]),
        "asOf": iso_utc(as_of),
    }


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)
