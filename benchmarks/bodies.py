"""Requests as the load generator sends them: every event unique, 200 campaigns in turn."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from ray_tracking.sources.tokens import TokenKeys

CAMPAIGNS = 200
#: In a mail of a campaign, from which each click is one.
LINKS = 10
_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148"
)
#: A repeated event was sent so many before it.
REPEAT_AFTER = 5_000
_LINK = "https://www.example.com/spring/offer?utm_source=mail&utm_campaign=spring&sku=%d"
#: In the place of numbers until they are known; none of them is changed by JSON.
_CAMPAIGN, _NUMBER = "@@@", "##########"


def event(number: int, timestamp: str) -> dict[str, Any]:
    """An open, with what a mail client tells; as long as any other one."""
    return {
        "campaignId": f"bench-campaign-{number % CAMPAIGNS:03}",
        "leadId": f"lead-{number:010}",
        "emailId": f"mail-{number:010}",
        "timestamp": timestamp,
        "eventId": f"bench-{number:010}",
        "accountId": "outreach-a@example.com",
        "ipAddress": "84.160.12.7",
        "userAgent": _AGENT,
    }


class Maker(Protocol):
    """Makes whole HTTP requests."""

    #: In each request.
    events: int

    def make(self, number: int) -> bytes:
        """The request of the events from ``number`` on."""


def maker(
    path: str,
    *,
    batch: int | None = None,
    click_every: int | None = None,
    repeat_every: int | None = None,
    first: int = 1,
    secret: str = "",
) -> Maker:
    """Of requests to ``/pixel``, or of events to another path."""
    if path == "/pixel":
        return Pixels(secret, click_every)
    return Requests(path, batch, repeat_every, first)


def repeats(place: int, every: int) -> int | None:
    """Which event, counted from the first, an event repeats; that one repeats none itself."""
    before = place - 1 - REPEAT_AFTER // every * every
    return before if place % every == every - 1 and before >= 0 else None


class Requests:
    """
    Whole HTTP requests as bytes, made by filling numbers into one that is ready.

    Args:
        path: Where they go.
        batch: Events in each; None for one event, not in a list.
        repeat_every: Each so-many-th event is one that was sent before; None for none.
        first: Number of the first event.
    """

    def __init__(
        self, path: str, batch: int | None, repeat_every: int | None = None, first: int = 1
    ) -> None:
        self.events = batch or 1
        self._batch = batch
        self._repeat_every = repeat_every
        self._first = first
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = event(0, stamp) | {
            "campaignId": f"bench-campaign-{_CAMPAIGN}",
            "leadId": f"lead-{_NUMBER}",
            "emailId": f"mail-{_NUMBER}",
            "eventId": f"bench-{_NUMBER}",
        }
        item = orjson.dumps({"eventType": "EMAIL_OPEN", "eventData": data})
        length = len(item) if batch is None else batch * (len(item) + 1) - 1 + len(b"[]")
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n"
        ).encode()
        template = item.replace(b"%", b"%%").replace(_CAMPAIGN.encode(), b"%03d")
        self._item = template.replace(_NUMBER.encode(), b"%010d")

    def make(self, number: int) -> bytes:
        """The request of the events from ``number`` on."""
        if self._batch is None:
            return self._head + self._item % (number % CAMPAIGNS, number, number, number)
        numbers: Iterable[int] = range(number, number + self._batch)
        if every := self._repeat_every:
            numbers = [self._original(n, every) for n in numbers]
        items = [self._item % (n % CAMPAIGNS, n, n, n) for n in numbers]
        return self._head + b"[" + b",".join(items) + b"]"

    def _original(self, number: int, every: int) -> int:
        place = repeats(number - self._first, every)
        return number if place is None else self._first + place


class Pixels:
    """
    Requests of pixels, each of a mail of its own, minted as ``ray-tracking tokens`` does.

    Args:
        secret: The service's ``EMAIL_ENCRYPTION_KEY``.
        click_every: Each so-many-th is a click on a link of the mail instead.
    """

    events = 1

    def __init__(self, secret: str, click_every: int | None = None) -> None:
        self._keys = TokenKeys([secret])
        self._click_every = click_every
        self._minted_at_s = int(time.time())

    def make(self, number: int) -> bytes:
        """The request of the event with this number."""
        ids = f"bench-campaign-{number % CAMPAIGNS:03}", f"lead-{number:010}", f"mail-{number:010}"
        at_s = self._minted_at_s
        if self._click_every and number % self._click_every == 0:
            url = _LINK % (number % LINKS)
            target = f"/click/{self._keys.mint_click(*ids, url, minted_at_s=at_s)}"
        else:
            target = f"/pixel/{self._keys.mint_open(*ids, minted_at_s=at_s)}.gif"
        head = f"GET {target} HTTP/1.1\r\nHost: bench\r\nUser-Agent: {_AGENT}\r\n\r\n"
        return head.encode()
