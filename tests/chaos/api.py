"""
The service as one client sees it. What it answers is remembered, and so is what no
service may answer.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

from tests.chaos.history import Ack, History, Place, Sent

_ANSWERED_WITHIN_S = 15.0
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
_GIF_BYTES = 43
#: Where there was no answer at all.
AGAIN_S = 0.2


class Event(NamedTuple):
    """What is sent, and what is remembered of it."""

    sent: Sent
    type: str
    data: dict[str, Any]
    priority: str | None = None


class Api:
    """
    Sends, and remembers.

    Args:
        url: Of the service.
        history: Gets every event, answer and impropriety.
    """

    def __init__(self, url: str, history: History) -> None:
        self.url = url
        self.history = history
        #: How often each status came; 0 is no answer.
        self.statuses: Counter[int] = Counter()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_ANSWERED_WITHIN_S),
        )

    async def close(self) -> None:
        await self._session.close()

    async def single(self, event: Event) -> float | None:
        """
        One event to ``POST /events``.

        Returns:
            None when it is acknowledged; else how long to wait before the next try.
        """
        body: dict[str, Any] = {"eventType": event.type, "eventData": event.data}
        if event.priority:
            body["metadata"] = {"priority": event.priority}
        self._remember([event])
        status, answer, headers = await self._post("/events", body)
        if status in (200, 202):
            if answer["eventId"] != event.sent.key or answer["duplicate"] is not (status == 200):
                self._improper(f"{status} to {event.sent.key}: {answer}")
            self._acknowledge(
                event,
                duplicate=status == 200,
                place=_place(answer["result"]),
                fallback=bool(answer.get("fallback")),
            )
            return None
        return self._refused(status, headers, answer, (429, 503))

    async def batch(self, events: Sequence[Event]) -> tuple[list[Event], float]:
        """
        Several to ``POST /events/batch``.

        Returns:
            Those that are not acknowledged, and how long to wait before the next try.
        """
        items = [
            {"eventType": event.type, "data": event.data}
            | ({"metadata": {"priority": event.priority}} if event.priority else {})
            for event in events
        ]
        self._remember(events)
        status, answer, headers = await self._post("/events/batch", {"events": items})
        if status not in (200, 207):
            return list(events), self._refused(status, headers, answer, (429, 503))
        refused = {error["index"]: error for error in answer["errors"]}
        taken = answer["processed"] + answer["duplicates"]
        if taken + len(refused) != len(events) or (status == 207) is not bool(refused):
            self._improper(f"{status} to a batch of {len(events)}: {str(answer)[:500]}")
        if answer["duplicates"] and all(event.sent.attempts == 1 for event in events):
            self._improper(f"{answer['duplicates']} duplicates in a batch of new events")
        fallback = bool(answer.get("fallback"))
        for index, event in enumerate(events):
            if index not in refused:
                # Which of them were duplicates is not told.
                self._acknowledge(event, duplicate=False, place=None, fallback=fallback)
        waits = [error.get("retryAfter") for error in refused.values()]
        if not all(isinstance(wait, int) and wait >= 1 for wait in waits):
            self._improper(f"refused items without retryAfter: {str(answer['errors'])[:500]}")
            waits = [1]
        return [events[index] for index in refused], float(max(waits, default=0))

    async def hit(self, event: Event, path: str) -> bool:
        """A pixel or a click, once; whether there was any answer."""
        self._remember([event])
        try:
            async with self._session.get(self.url + path, allow_redirects=False) as answer:
                body = await answer.read()
        except _BROKEN:
            self.statuses[0] += 1
            return False
        self.statuses[answer.status] += 1
        if path.startswith("/pixel/"):
            proper = answer.status == 200 and len(body) == _GIF_BYTES
        else:
            proper = answer.status == 302 and answer.headers["Location"] == event.data["linkUrl"]
        if not proper:
            self._improper(f"{answer.status} to {path}: {body[:200]!r}")
        if answer.headers.get("X-Tracking-Durable") == "1":
            self._acknowledge(event, duplicate=False, place=None, fallback=False)
        return True

    async def links(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The tracking links of a mail; None when there was no answer."""
        status, answer, headers = await self._post("/tracking-links", body)
        if status == 201:
            return answer
        self._refused(status, headers, answer, (503,))
        return None

    async def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any, Mapping[str, str]]:
        """Status 0 when there was no answer, or half of one."""
        try:
            async with self._session.post(self.url + path, json=body) as answer:
                raw = await answer.read()
        except _BROKEN:
            self.statuses[0] += 1
            return 0, None, {}
        self.statuses[answer.status] += 1
        try:
            return answer.status, json.loads(raw), answer.headers
        except ValueError:
            return answer.status, raw, answer.headers

    def _remember(self, events: Sequence[Event]) -> None:
        now_s = time.monotonic()
        for event in events:
            sent = event.sent
            if not sent.attempts:
                sent.first_s = now_s
                self.history.events[sent.key] = sent
            sent.attempts += 1
            sent.last_s = now_s

    def _acknowledge(
        self, event: Event, *, duplicate: bool, place: Place | None, fallback: bool
    ) -> None:
        event.sent.acks.append(Ack(time.monotonic(), duplicate, place, fallback))

    def _refused(
        self, status: int, headers: Mapping[str, str], answer: Any, proper: tuple[int, ...]
    ) -> float:
        """How long to wait; a client does as it is told."""
        if status == 0:
            return AGAIN_S
        wait = headers.get("Retry-After", "")
        if status not in proper or not wait.isdecimal() or int(wait) < 1:
            self._improper(f"{status}, Retry-After {wait or 'missing'}: {str(answer)[:300]}")
            return 1.0
        return float(wait)

    def _improper(self, text: str) -> None:
        self.history.improper.append(f"after {time.monotonic():.1f} s: {text}")


def _place(result: Mapping[str, Any] | None) -> Place | None:
    if result is None:
        return None
    epoch, seq = result["position"].split("-")
    return Place(result["partition"], result["lane"], int(epoch), int(seq), result["index"])
