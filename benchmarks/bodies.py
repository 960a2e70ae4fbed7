"""Requests as the load generator sends them: every event unique, 200 campaigns in turn."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import orjson

from ray_tracking.sources.tokens import TokenKeys

CAMPAIGNS = 200
_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Mobile/15E148"
)
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


class Requests:
    """
    Whole HTTP requests as bytes, made by filling numbers into one that is ready.

    Args:
        path: Where they go.
        batch: Events in each; None for one event, not in a list.
    """

    def __init__(self, path: str, batch: int | None) -> None:
        self.events = batch or 1
        self._batch = batch
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
        items = [self._item % (n % CAMPAIGNS, n, n, n) for n in range(number, number + self._batch)]
        return self._head + b"[" + b",".join(items) + b"]"


class Pixels:
    """
    Requests of pixels, each of a mail of its own, minted as ``ray-tracking tokens`` does.

    Args:
        secret: The service's ``EMAIL_ENCRYPTION_KEY``.
    """

    def __init__(self, secret: str) -> None:
        self._keys = TokenKeys([secret])
        self._minted_at_s = int(time.time())

    def make(self, number: int) -> bytes:
        """The request of the event with this number."""
        campaign = f"bench-campaign-{number % CAMPAIGNS:03}"
        token = self._keys.mint_open(
            campaign, f"lead-{number:010}", f"mail-{number:010}", minted_at_s=self._minted_at_s
        )
        head = f"GET /pixel/{token}.gif HTTP/1.1\r\nHost: bench\r\nUser-Agent: {_AGENT}\r\n\r\n"
        return head.encode()
