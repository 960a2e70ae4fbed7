"""
Figures counted from the rows anew, in plain Python: what every rollup must be equal to.

It shares nothing with the SQL that counts for the service.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_TOTALS = {
    "EMAIL_SENT": "sent",
    "EMAIL_DELIVERED": "delivered",
    "EMAIL_OPEN": "opens",
    "LINK_CLICK": "clicks",
    "EMAIL_REPLY": "replies",
    "CAMPAIGN_STATUS_CHANGE": "status_changes",
    "ACCOUNT_HEALTH_UPDATE": "health_updates",
}
_MACHINES = {"EMAIL_OPEN": "machine_opens", "LINK_CLICK": "machine_clicks"}
_UNIQUE = {
    "EMAIL_OPEN": "unique_opens",
    "LINK_CLICK": "unique_clicks",
    "EMAIL_REPLY": "unique_replies",
}


def recount(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Every figure that is not zero, by a name that says of what it is."""
    figures: Counter[str] = Counter()
    leads: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if (campaign := row["campaign_id"]) is None:
            continue
        kind, machine = row["event_type"], row["agent"] == "machine"
        figures[f"{campaign} total events"] += 1
        if machine:
            if kind in _MACHINES:
                figures[f"{campaign} total {_MACHINES[kind]}"] += 1
        elif kind == "EMAIL_BOUNCE":
            figures[f"{campaign} total {row['bounce_type']}"] += 1
        else:
            figures[f"{campaign} total {_TOTALS[kind]}"] += 1
        at = row["occurred_at"]
        minute = at.replace(second=0, microsecond=0)
        hour = minute.replace(minute=0)
        for bucket, start in (("minute", minute), ("hour", hour), ("day", hour.replace(hour=0))):
            figures[f"{campaign} {bucket} {start.isoformat()} {kind} {machine}"] += 1
        if machine or kind not in _UNIQUE:
            continue
        leads[f"{campaign} total {_UNIQUE[kind]}"].add(row["lead_id"])
        if kind == "EMAIL_REPLY":
            continue
        device = json.loads(row["device"] or "{}").get("type", "")
        country = json.loads(row["location"] or "{}").get("country", "")
        figures[f"{campaign} device {device} {kind}"] += 1
        figures[f"{campaign} country {country} {kind}"] += 1
        if kind == "LINK_CLICK":
            link_id = json.loads(row["details"] or "{}").get("linkId")
            link = f"{campaign} link {row['link_url']} {link_id}"
            figures[f"{link} clicks"] += 1
            leads[f"{link} unique"].add(row["lead_id"])
    return dict(figures) | {name: len(its) for name, its in leads.items()}


async def rolled(sql: Any) -> dict[str, int]:
    """The same figures as the rollups have them."""
    figures: dict[str, int] = {}
    shown = (
        "SELECT t.* FROM {} t LEFT JOIN rollup_generations g USING (campaign_id) "
        "WHERE t.generation = coalesce(g.generation, 0)"
    )
    for row in await sql(shown.format("rollup_totals")):
        for name, number in dict(row).items():
            if name not in ("campaign_id", "generation") and not name.endswith("_at"):
                figures[f"{row['campaign_id']} total {name}"] = number
    for row in await sql(shown.format("rollup_buckets")):
        start, machine = row["bucket_start"].isoformat(), row["is_machine"]
        name = f"{row['campaign_id']} {row['bucket']} {start} {row['event_type']} {machine}"
        figures[name] = row["events"]
    for row in await sql(shown.format("rollup_groups")):
        name = f"{row['campaign_id']} {row['kind']} {row['name']} {row['event_type']}"
        figures[name] = row["events"]
    for row in await sql(shown.format("rollup_links")):
        link = f"{row['campaign_id']} link {row['link_url']} {row['link_id']}"
        figures[f"{link} clicks"] = row["clicks"]
        figures[f"{link} unique"] = row["unique_clicks"]
    return {name: number for name, number in figures.items() if number}
