"""A campaign to look at: its events, sent as a client does, and its figures by SQL."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.e2e.service import Service

_LINKS = ("https://example.com/offer?a=1&b=2", "https://example.com/pricing")
_DEVICES = ({"type": "desktop", "os": "macOS"}, {"type": "mobile", "os": "iOS"}, {"type": "tablet"})
_COUNTRIES = ("DE", "US", "GB", "FR")
_BOUNCES = ("hard", "soft", "complaint", "suppression")

_FIGURES = """
    SELECT count(*) FILTER (WHERE event_type = 'EMAIL_SENT') AS sent,
           count(*) FILTER (WHERE event_type = 'EMAIL_DELIVERED') AS delivered,
           count(*) FILTER (WHERE event_type = 'EMAIL_OPEN' AND human) AS opens,
           count(DISTINCT lead_id) FILTER (WHERE event_type = 'EMAIL_OPEN' AND human)
             AS unique_opens,
           count(*) FILTER (WHERE event_type = 'LINK_CLICK' AND human) AS clicks,
           count(DISTINCT lead_id) FILTER (WHERE event_type = 'LINK_CLICK' AND human)
             AS unique_clicks,
           count(*) FILTER (WHERE event_type = 'EMAIL_REPLY') AS replies,
           count(DISTINCT lead_id) FILTER (WHERE event_type = 'EMAIL_REPLY') AS unique_replies,
           count(*) FILTER (WHERE event_type = 'EMAIL_BOUNCE' AND bounce_type = 'hard') AS hard,
           count(*) FILTER (WHERE event_type = 'EMAIL_BOUNCE' AND bounce_type = 'soft') AS soft
    FROM (SELECT *, agent IS DISTINCT FROM 'machine' AS human FROM events) AS all_of_them
    WHERE campaign_id = $1"""


def events(campaign_id: str, mails: int, *, seed: int = 1, over: timedelta) -> list[dict[str, Any]]:
    """
    What becomes of so many mails, as items of a batch, in the order of time.

    Args:
        campaign_id: Whose.
        mails: How many; each to a lead of its own.
        seed: Of the dice.
        over: They end now, and began so long ago.
    """
    dice = random.Random(f"{campaign_id} {seed}")
    start = datetime.now(UTC) - over
    found: list[dict[str, Any]] = []

    def add(event_type: str, at: float, lead: int, **data: Any) -> None:
        if at >= 1:
            return  # that is still to come
        moment = start + over * at
        found.append(
            {
                "eventType": event_type,
                "data": {
                    "campaignId": campaign_id,
                    "leadId": f"lead-{lead:05}@example.com",
                    "emailId": f"mail-{seed}-{lead}",
                    "eventId": f"{seed}-{len(found)}",
                    "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    **data,
                },
            }
        )

    for lead in range(mails):
        at = dice.random() ** 2 * 0.9
        add("EMAIL_SENT", at, lead)
        if dice.random() < 0.04:
            add("EMAIL_BOUNCE", at + 0.002, lead, bounceType=dice.choice(_BOUNCES))
            continue
        add("EMAIL_DELIVERED", at + 0.002, lead)
        who = {
            "deviceInfo": dice.choices(_DEVICES, [5, 4, 1])[0],
            "locationInfo": {"country": dice.choices(_COUNTRIES, [5, 4, 2, 1])[0]},
        }
        while dice.random() < 0.45:
            at += dice.expovariate(12)
            add("EMAIL_OPEN", at, lead, **who)
            if dice.random() < 0.25:
                add("LINK_CLICK", at + 0.01, lead, linkUrl=dice.choice(_LINKS), **who)
            if dice.random() < 0.05:
                add("EMAIL_REPLY", at + 0.02, lead)
    return sorted(found, key=lambda item: item["data"]["timestamp"])


def hurried(directory: Path) -> Service:
    """A service with limits so wide that nobody has to wait for them."""
    return Service(
        directory,
        TRACKING_MAX_EVENTS_PER_WINDOW="1000000",
        TRACKING_BURST_CAPACITY="100000",
    )


def chunks(items: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    """One after the other, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def send(service: Service, items: Sequence[dict[str, Any]], *, size: int = 500) -> None:
    """Send them in batches; each of them is accepted."""
    for chunk in chunks(items, size):
        answer = service.call("POST", "/events/batch", {"events": list(chunk)})
        assert (answer.status, answer.body["processed"]) == (200, len(chunk)), answer.body


class Playing(threading.Thread):
    """
    Sends while the test looks at the page.

    Args:
        service: Whom.
        items: What, in batches of so many.
        pause_s: After each batch.
    """

    def __init__(
        self, service: Service, items: Sequence[dict[str, Any]], *, size: int, pause_s: float = 0.0
    ) -> None:
        super().__init__(daemon=True)
        self._service, self._items, self._size, self._pause_s = service, items, size, pause_s
        self._stop_asked = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for chunk in chunks(self._items, self._size):
                send(self._service, chunk, size=self._size)
                if self._stop_asked.wait(self._pause_s):
                    return
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Wait until all is sent."""
        self.join()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Send no more."""
        self._stop_asked.set()
        self.finish()


def rows(service: Service, query: str, *args: Any) -> list[Any]:
    """From the service's Postgres; in a thread, as the browser's loop runs in this one."""
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(service.sql, query, *args).result()


def headline_by_sql(service: Service, campaign_id: str) -> dict[str, str]:
    """What the page must show, from the rows themselves."""
    (row,) = rows(service, _FIGURES, campaign_id)
    reached = row["delivered"] or row["sent"]

    def rate(part: int, whole: int) -> str:
        return f"{part / whole * 100:.1f}%" if whole else "\N{EN DASH}"

    return {
        "Sent": f"{row['sent']:,}",
        "Delivered": f"{row['delivered']:,}",
        "Open rate": rate(row["unique_opens"], reached),
        "Click rate": rate(row["unique_clicks"], reached),
        "Reply rate": rate(row["unique_replies"], reached),
        "Bounce rate": rate(row["hard"] + row["soft"], row["sent"]),
        "opens": f"{row['unique_opens']:,} unique\n{row['opens']:,} total",
        "clicks": f"{row['unique_clicks']:,} unique\n{row['clicks']:,} total",
        "replies": f"{row['unique_replies']:,} unique\n{row['replies']:,} total",
        "bounces": f"{row['hard']:,} hard\n{row['soft']:,} soft",
    }
