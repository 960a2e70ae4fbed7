"""One formula for each figure of a campaign, wherever it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ray_tracking.events import EventType
from ray_tracking.pipeline.rows import iso_utc

_TYPE_NAMES = tuple(kind.value for kind in EventType)


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
        "bounces": _bounces(counts),
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


def timeline_item(bucket: Mapping[str, Any]) -> dict[str, Any]:
    """
    A bucket of a timeline as the API shows it.

    Args:
        bucket: When it begins (``bucket_start``), and the events by people in it: their
            ``types``, and of each how many ``events``.
    """
    counts = dict(zip(bucket["types"], bucket["events"], strict=True))
    ordered = {name: counts[name] for name in _TYPE_NAMES if name in counts}
    return {"bucketStart": iso_utc(bucket["bucket_start"]), "counts": ordered}


def link_item(link: Mapping[str, Any]) -> dict[str, Any]:
    """A link as the API shows it, from its columns."""
    return {
        "linkUrl": link["link_url"],
        "linkId": link["link_id"],
        "clicks": link["clicks"],
        "uniqueClicks": link["unique_clicks"],
    }


def breakdown(
    campaign_id: str,
    counts: Mapping[str, Any],
    devices: Iterable[tuple[str, int]],
    countries: Iterable[tuple[str, int]],
) -> dict[str, Any]:
    """
    Who opened and clicked, and why mail came back.

    Args:
        campaign_id: Whose.
        counts: The plain counts.
        devices: Opens and clicks by people, by type of device; the largest first.
        countries: The same by country.
    """
    return {
        "campaignId": campaign_id,
        "devices": [{"name": name or None, "count": count} for name, count in devices],
        "countries": [{"name": name or None, "count": count} for name, count in countries],
        "bounces": _bounces(counts),
    }


def lead_state(counts: Mapping[str, Any]) -> dict[str, Any]:
    """What one lead has done, from the plain counts of its events."""
    return {
        "sent": counts["sent"],
        "delivered": counts["delivered"],
        "opened": counts["opens"] > 0,
        "clicked": counts["clicks"] > 0,
        "replied": counts["replies"] > 0,
        "bounced": counts["hard"] + counts["soft"] > 0,
        "opens": counts["opens"],
        "clicks": counts["clicks"],
        "replies": counts["replies"],
        "bounces": _bounces(counts),
        "machineOpens": counts["machine_opens"],
        "machineClicks": counts["machine_clicks"],
        "firstEventAt": _time(counts["first_event_at"]),
        "lastEventAt": _time(counts["last_event_at"]),
    }


def _bounces(counts: Mapping[str, Any]) -> dict[str, int]:
    return {name: counts[name] for name in ("hard", "soft", "complaint", "suppression")}


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else iso_utc(moment)
