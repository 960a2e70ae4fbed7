"""
Pixels and clicks: the ways in that nobody can send again.

The mail client always gets its GIF or its redirect: as soon as the event is durable,
and then the answer says so, or after ``answer_timeout_ms`` in any case, while the event
goes on. Whatever happens behind it, a bad day of ours never shows in somebody's mail.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import Agent, Event, EventType, Identifier
from ray_tracking.http.asgi import (
    Headers,
    Receive,
    Scope,
    Send,
    header,
    read_decoded,
    send_json,
)
from ray_tracking.http.client_address import of_request
from ray_tracking.http.hot import Hot, Reply
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.enrich import enrich
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.receive import JSON, MAX_BODY_BYTES, media_type, parse_single
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Submission
from ray_tracking.pipeline.validate import explain
from ray_tracking.sources.destination import check_destination, location_header
from ray_tracking.sources.tokens import ClickToken, OpenToken

#: A transparent pixel, 43 bytes.
GIF = base64.b64decode("R0lGODlhAQABAJAAAP8AAAAAACH5BAUQAAAALAAAAAABAAEAAAICBAEAOw==")
MAX_LINKS = 1000
_MAX_FIELDS = 64

_PIXEL_HEADERS: Headers = [
    (b"content-type", b"image/gif"),
    (b"cache-control", b"no-store, no-cache, must-revalidate, private, max-age=0"),
    (b"pragma", b"no-cache"),
    (b"expires", b"0"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
_CLICK_HEADERS: Headers = [
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-robots-tag", b"noindex"),
]
_DURABLE = (b"x-tracking-durable", b"1")
_NOT_FOUND = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>Link not found</title>"
    b"<h1>This link does not work</h1>"
    b"<p>It may have been cut off on its way. Open it from the original message.</p></html>"
)
#: A hit that neither log nor spool can take now is offered again, for so long.
_KEEP_TRYING_S = 60.0
_TRY_AGAIN_S = 0.5

log = structlog.get_logger("ray_tracking.tracking")


class LinkRequest(TypedDict):
    """The body of ``POST /tracking-links``."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    campaignId: Identifier
    leadId: Identifier
    emailId: Identifier
    links: list[str]


_LINK_REQUEST = TypeAdapter(LinkRequest)


class _Hit:
    """An answer that waits for the event, but not for long."""

    __slots__ = ("_decided", "timer")

    def __init__(self, decided: Callable[[bool], None]) -> None:
        self._decided: Callable[[bool], None] | None = decided
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, durable: bool) -> None:
        """The first answer counts."""
        decided, self._decided = self._decided, None
        if decided is not None:
            if self.timer is not None:
                self.timer.cancel()
            decided(durable)


class Tracking:
    """
    Pixel, click, and the links to both.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._trying: set[asyncio.Task[None]] = set()
        self._one_over = asyncio.Event()
        #: Hits that are not durable yet.
        self.room = Room(ports.settings.max_buffer_size)
        #: Answered before it was known whether they are durable.
        self.unconfirmed = 0
        #: Given up: neither log nor spool nor memory could take them.
        self.lost = 0
        self._closing = False

    @property
    def pixel(self) -> Hot:
        """``GET /pixel/{token}``: always the GIF."""
        return Hot(self._pixel)

    @property
    def click(self) -> Hot:
        """``GET /click/{token}``: to the link inside the token, and nowhere else."""
        return Hot(self._click)

    def _pixel(self, scope: Scope, body: bytes, reply: Reply) -> None:
        token = _token(scope, "/pixel/").removesuffix(".gif")
        opened = self._ports.tokens.read_open(token)
        if opened is None:
            reply(200, _PIXEL_HEADERS, GIF)
            return

        def decided(durable: bool) -> None:
            reply(200, _with(_PIXEL_HEADERS, durable), GIF)

        self._record(scope, token, EventType.EMAIL_OPEN, opened, {}, decided)

    def _click(self, scope: Scope, body: bytes, reply: Reply) -> None:
        token = _token(scope, "/click/")
        clicked = self._ports.tokens.read_click(token)
        if clicked is None:
            headers = [(b"content-type", b"text/html; charset=utf-8"), *_CLICK_HEADERS]
            reply(404, headers, _NOT_FOUND)
            return
        link = {"linkUrl": clicked.url}
        if clicked.link_id is not None:
            link["linkId"] = clicked.link_id
        location = (b"location", location_header(clicked.url))

        def decided(durable: bool) -> None:
            reply(302, _with([location, *_CLICK_HEADERS], durable), b"")

        self._record(scope, token, EventType.LINK_CLICK, clicked, link, decided)

    async def links(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /tracking-links``: the pixel and the tracking links of one mail."""
        ports = self._ports
        ports.access.require(scope, "ingest")
        media_type(header(scope, b"content-type"), (JSON,))
        value = parse_single(await read_decoded(scope, receive, MAX_BODY_BYTES))
        await send_json(send, 201, self._mint(value, ports.clock() // 1000))

    async def drain(self) -> None:
        """Return when every hit is durable or given up. None is offered another time."""
        self._closing = True
        while self.room.events:
            self._one_over.clear()
            await self._one_over.wait()

    def _mint(self, value: Any, now_s: int) -> dict[str, Any]:
        try:
            asked: LinkRequest = _LINK_REQUEST.validate_python(value)
        except ValidationError as error:
            raise InvalidEvent(explain(error, "a tracking link request")) from None
        if len(asked["links"]) > MAX_LINKS:
            raise InvalidEvent([("links", f"has more than {MAX_LINKS} links")])
        urls = [url.strip() for url in asked["links"]]
        wrong = [
            (f"links.{index}", reason)
            for index, url in enumerate(urls)
            if (reason := check_destination(url))
        ]
        if wrong:
            raise InvalidEvent(wrong)
        ids = (asked["campaignId"], asked["leadId"], asked["emailId"])
        tokens, base = self._ports.tokens, self._ports.settings.public_base_url
        return {
            "pixelUrl": f"{base}/pixel/{tokens.mint_open(*ids, minted_at_s=now_s)}.gif",
            "links": [
                {
                    "url": url,
                    "trackingUrl": f"{base}/click/"
                    + tokens.mint_click(*ids, url, minted_at_s=now_s),
                }
                for url in urls
            ],
        }

    def _record(
        self,
        scope: Scope,
        token: str,
        event_type: EventType,
        said: OpenToken | ClickToken,
        link: dict[str, str],
        decided: Callable[[bool], None],
    ) -> None:
        """Send the event on its way, and say in time whether it is durable."""
        if self._ports.erased.refuses(said.lead_id, said.minted_at_s):
            decided(False)
            return
        began_s = time.perf_counter()
        submission = self._submission(scope, token, event_type, said, link)
        if not self.room.take(1, submission.size_bytes):
            self._lose("too many hits are waiting for the log")
            decided(False)
            return
        hit = _Hit(decided)
        hit.timer = asyncio.get_running_loop().call_later(
            self._ports.settings.answer_timeout_ms / 1000, self._time_is_up, hit
        )

        def told(outcome: Outcome) -> None:
            if outcome.verdict in answer.TAKEN:
                traffic, clock = self._ports.traffic, self._ports.clock
                traffic.note_one(outcome.verdict, 1000 * (time.perf_counter() - began_s), clock())
                self._over(submission, hit, durable=True)
                return
            task = asyncio.create_task(self._persist(submission, hit, outcome))
            self._trying.add(task)
            task.add_done_callback(self._trying.discard)

        self._ports.intake.offer(submission, told, keep=True)

    def _time_is_up(self, hit: _Hit) -> None:
        self.unconfirmed += 1
        hit.answer(False)

    def _over(self, submission: Submission, hit: _Hit, *, durable: bool) -> None:
        self.room.leave(1, submission.size_bytes)
        self._one_over.set()
        hit.answer(durable)

    async def _persist(self, submission: Submission, hit: _Hit, outcome: Outcome) -> None:
        """See an event through that was not durable at once."""
        durable = False
        try:
            durable = await self._try_again(submission, outcome)
        finally:
            self._over(submission, hit, durable=durable)

    async def _try_again(self, submission: Submission, outcome: Outcome) -> bool:
        """Whether the event is durable, in the end."""
        deadline_s = asyncio.get_running_loop().time() + _KEEP_TRYING_S
        while outcome.verdict not in answer.TAKEN:
            unclear = outcome.verdict is Verdict.UNAVAILABLE
            await asyncio.sleep(_TRY_AGAIN_S)
            if asyncio.get_running_loop().time() >= deadline_s or self._closing:
                self._lose("neither the log nor the spool took it in time")
                return False
            outcome = await (self._repeat if unclear else self._offer)(submission)
        return True

    async def _offer(self, submission: Submission) -> Outcome:
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._ports.intake.offer(submission, told.set_result, keep=True)
        return await told

    async def _repeat(self, submission: Submission) -> Outcome:
        """
        An event that may be in the log: ask until it is clear.

        It never goes to the spool, and there is no other end than an answer, or ours.
        """
        while True:
            (outcome,) = await self._ports.gatherer.submit([submission])
            if outcome.verdict in answer.TAKEN or self._closing:
                return outcome
            await asyncio.sleep(_TRY_AGAIN_S)

    def _lose(self, reason: str) -> None:
        self.lost += 1
        log.error("hit lost", reason=reason)

    def _submission(
        self,
        scope: Scope,
        token: str,
        event_type: EventType,
        said: OpenToken | ClickToken,
        link: dict[str, str],
    ) -> Submission:
        ports = self._ports
        event_id, now_s = ports.mint()
        # Without a timestamp: nobody spells out the moment, and nobody reads it here.
        data: dict[str, Any] = {
            "campaignId": said.campaign_id,
            "leadId": said.lead_id,
            "emailId": said.email_id,
            **link,
        }
        if address := of_request(scope, ports.proxies):
            data["ipAddress"] = address
        if agent := _clean_agent(header(scope, b"user-agent")):
            data["userAgent"] = agent
        event = Event(
            event_type,
            enrich(data, locate=ports.geo.locate),
            round(now_s * 1000) * 1000,
            False,
            Agent.MACHINE if scope["method"] == "HEAD" else None,
        )
        return ports.router.route(event, event_id, single=True, token=token)


def _token(scope: Scope, prefix: str) -> str:
    path: str = scope["path"]
    if path.startswith(prefix):
        return path.removeprefix(prefix)
    try:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return ""  # more than anybody adds to a link
    token: str = query.get("t", [""])[0]
    return token


def _clean_agent(agent: str | None) -> str | None:
    """A User-Agent as an event may carry it: bounded, and without control characters."""
    if not agent:
        return None
    agent = agent[:2048]
    if not agent.isprintable():
        agent = "".join(filter(str.isprintable, agent))
    return agent.strip() or None


def _with(headers: Headers, durable: bool) -> Headers:
    return [*headers, _DURABLE] if durable else headers
