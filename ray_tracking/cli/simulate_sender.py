"""
One event, or one batch, on its way to the service: a single try, and what came of it.

A hit is fetched as a mail client would: through links made by ``POST /tracking-links``,
without a key, without following the redirect.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from ray_tracking.cli.simulate_tally import Tally
from ray_tracking.sources.simulation import Planned, Via

#: Mails whose links are remembered.
_MAX_MAILS = 10_000

#: Told each acknowledged event, whether it is durable, and whether it was a duplicate
#: (None where the answer does not say).
Acknowledged = Callable[[Planned, bool, bool | None], None]


class AccessRefused(Exception):
    """The service does not take our key, or the lack of one."""


class Sender:
    """
    Each of its ways to send returns None when nothing is left to do, else after how
    many seconds to try again. What means nothing to us is a ``ValueError``.

    Args:
        session: What to send with.
        url: The service, without a slash at the end.
        tally: Where everything is counted.
        acknowledged: Told each acknowledged event, after its acknowledgement.
        api_key: Sent with the API's calls.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        tally: Tally,
        acknowledged: Acknowledged,
        api_key: str | None,
    ) -> None:
        self._session = session
        self._url = url
        self._tally = tally
        self._acknowledged = acknowledged
        self._key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._batches = 0
        self._mails: dict[tuple[str, str, str], asyncio.Task[dict[str, Any]]] = {}

    async def close(self) -> None:
        """Let go of what is still being asked."""
        for task in self._mails.values():
            task.cancel()
        await asyncio.gather(*self._mails.values(), return_exceptions=True)

    async def single(self, planned: Planned, begun_s: float) -> float | None:
        """``POST /events``. ``begun_s`` is when this try was due."""
        body = orjson.dumps(_item(planned))
        status, answer, retry_after_s = await self._post("/events", body, "application/json")
        if status in (200, 202):
            self._took("events", begun_s)
            self._took_event(planned, durable=True, duplicate=status == 200)
            return None
        return self._refuse(status, answer, retry_after_s)

    async def batch(self, items: list[Planned], begun_s: float) -> float | None:
        """``POST /events/batch``. ``items`` shrinks to those that are still open."""
        media, body, headers = _batch_body(items, self._batches)
        self._batches += 1
        status, answer, retry_after_s = await self._post("/events/batch", body, media, headers)
        if not isinstance(answer, dict) or "errors" not in answer:
            waits = [self._refuse(status, answer, retry_after_s) for _ in items]
            if waits[0] is None:
                items.clear()
            return waits[0]
        if status < 400:
            self._took("batch", begun_s)
        again: list[Planned] = []
        refused = {error["index"]: error for error in answer["errors"]}
        self._tally.duplicates += answer["duplicates"]
        self._tally.accepted += answer["processed"]
        self._tally.rate_limited += answer["rateLimited"]
        self._tally.overloaded += answer["overloaded"]
        self._tally.invalid += answer["invalid"]
        wait_s: float | None = None
        for index, planned in enumerate(items):
            error = refused.get(index)
            if error is None:
                # The answer says how many were duplicates, not which.
                self._acknowledged(planned, True, None)
            elif "retryAfter" in error:
                again.append(planned)
                wait_s = max(wait_s or 0.0, float(error["retryAfter"]))
            else:
                self._tally.because(f"invalid: {error.get('details')}")
        items[:] = again
        return wait_s

    async def hit(self, planned: Planned, begun_s: float) -> float | None:
        """``GET /pixel/{token}`` or ``/click/{token}``."""
        links = await self._links_of(planned)
        if planned.via == "pixel":
            address = links["pixelUrl"]
        else:
            pairs = {link["url"]: link["trackingUrl"] for link in links["links"]}
            address = pairs[planned.data["linkUrl"]]
        # The links may be made under a public name that this machine does not reach.
        path = urlsplit(address).path
        url = URL(self._url + path[path.rindex(f"/{planned.via}/") :], encoded=True)
        headers = {
            "User-Agent": planned.data["userAgent"],
            "X-Forwarded-For": planned.data["ipAddress"],
        }
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            await response.read()
        if response.status != (200 if planned.via == "pixel" else 302):
            raise ValueError(f"/{planned.via} answered {response.status}")
        self._took(planned.via, begun_s)
        self._took_event(
            planned, durable=response.headers.get("X-Tracking-Durable") == "1", duplicate=False
        )
        return None

    async def _links_of(self, planned: Planned) -> dict[str, Any]:
        """The tracking links of a mail, made once."""
        data = planned.data
        mail = (data["campaignId"], data["leadId"], data["emailId"])
        task = self._mails.get(mail)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            self._mails[mail] = task = asyncio.create_task(self._make_links(mail, planned.links))
            if len(self._mails) > _MAX_MAILS:
                del self._mails[next(iter(self._mails))]
        return await task

    async def _make_links(
        self, mail: tuple[str, str, str], links: tuple[str, ...]
    ) -> dict[str, Any]:
        names = ("campaignId", "leadId", "emailId")
        body = orjson.dumps({**dict(zip(names, mail, strict=True)), "links": links})
        status, answer, _ = await self._post("/tracking-links", body, "application/json")
        if status != 201:
            _check_access(status, answer)
            raise ValueError(f"/tracking-links answered {status}: {_error(answer)}")
        made: dict[str, Any] = answer
        return made

    async def _post(
        self, path: str, body: bytes, media: str, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, float | None]:
        """Status, body where it is JSON, and ``Retry-After``."""
        given = {"Content-Type": media, **self._key, **(headers or {})}
        async with self._session.post(self._url + path, data=body, headers=given) as response:
            raw = await response.read()
        try:
            answer = orjson.loads(raw)
        except ValueError:
            answer = None
        after = response.headers.get("Retry-After", "")
        return response.status, answer, float(after) if after.isdigit() else None

    def _took(self, via: Via, begun_s: float) -> None:
        self._tally.answered(via, time.monotonic() - begun_s)

    def _took_event(self, planned: Planned, *, durable: bool, duplicate: bool) -> None:
        if duplicate:
            self._tally.duplicates += 1
        elif durable:
            self._tally.accepted += 1
        else:
            self._tally.unconfirmed += 1
        self._acknowledged(planned, durable, duplicate)

    def _refuse(self, status: int, answer: Any, retry_after_s: float | None) -> float | None:
        """Count one event's refusal; after how many seconds to try again, or None."""
        _check_access(status, answer)
        if status == 429:
            self._tally.rate_limited += 1
        elif status == 503:
            self._tally.overloaded += 1
        elif 400 <= status < 500:
            self._tally.invalid += 1
            self._tally.because(f"{status}: {_error(answer)}")
            return None
        else:
            raise ValueError(f"answered {status}: {_error(answer)}")
        return 1.0 if retry_after_s is None else retry_after_s


def _check_access(status: int, answer: Any) -> None:
    if status in (401, 403):
        raise AccessRefused(_error(answer))


def _item(planned: Planned) -> dict[str, Any]:
    return {"eventType": planned.event_type, "eventData": planned.data}


def _batch_body(items: Sequence[Planned], number: int) -> tuple[str, bytes, dict[str, str]]:
    """Media type, body and headers; the API's ways to write a batch take turns."""
    if number % 3 == 0:
        body = {"events": [{"eventType": item.event_type, "data": item.data} for item in items]}
        return "application/json", orjson.dumps(body), {}
    lines = b"".join(orjson.dumps(_item(i), option=orjson.OPT_APPEND_NEWLINE) for i in items)
    if number % 3 == 1:
        return "application/x-ndjson", lines, {}
    return "application/x-ndjson", gzip.compress(lines, 1), {"Content-Encoding": "gzip"}


def _error(answer: Any) -> str:
    if not isinstance(answer, dict):
        return "no JSON"
    details = answer.get("details")
    return f"{answer.get('error')}{f' {details}' if details else ''}"
