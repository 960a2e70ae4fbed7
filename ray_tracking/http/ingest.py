"""Events over the API: one at a time, or a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson
import structlog

from ray_tracking import failpoints
from ray_tracking.errors import InvalidEvent, MalformedRequest
from ray_tracking.events import LANES, EventType
from ray_tracking.http.asgi import (
    JSON_TYPE,
    Headers,
    Receive,
    Scope,
    Send,
    headers,
    held,
    overloaded,
    read_body,
    send_json,
)
from ray_tracking.http.hot import Hot, Reply
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.modes import Mode, mode_of
from ray_tracking.pipeline.receive import (
    JSON,
    MAX_BATCH_BODY_BYTES,
    MAX_BODY_BYTES,
    MAX_DECOMPRESSED_BYTES,
    NDJSON,
    decompress,
    media_type,
    parse_batch,
    parse_single,
    trace_context,
)
from ray_tracking.pipeline.route import Submission
from ray_tracking.pipeline.validate import item_type, validate_item

log = structlog.get_logger("ray_tracking.http")

#: A large batch lets other requests have the loop after so many items.
_YIELD_EVERY = 250
_MAX_KEY_CHARS = 128
_HEADERS = (b"content-type", b"content-encoding", b"idempotency-key", b"traceparent")


class Ingest:
    """
    The two ways in.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    @property
    def single(self) -> Hot:
        """``POST /events`` and ``POST /webhook/tracking``: 202 only when it is durable."""
        return Hot(self._single, MAX_BODY_BYTES, self._may_ingest)

    def _may_ingest(self, scope: Scope) -> None:
        self._ports.access.require(scope, "ingest")

    def _single(self, scope: Scope, body: bytes, reply: Reply) -> None:
        ports = self._ports
        started = time.perf_counter()
        content_type, encoding, given_key, trace = headers(scope, *_HEADERS)
        media_type(content_type, (JSON,))
        key = _idempotency_key(given_key)
        item = parse_single(decompress(body, encoding, MAX_BODY_BYTES))
        event_id, now_s = ports.mint()
        try:
            event = validate_item(item, now_s=now_s, rules=ports.rules)
        except InvalidEvent as error:
            ports.traffic.invalid += 1
            log.debug("not valid", fields=[name for name, _ in error.details])
            raise
        submission = ports.router.route(
            event, event_id, single=True, idempotency_key=key, traceparent=trace_context(trace)
        )
        mode = mode_of(LANES[submission.lane], ports.mode)
        failpoints.reach("ingress.received", body)

        def decided(outcome: Outcome) -> None:
            failpoints.reach("ingress.answered", body)
            given = event.data.get("eventId")
            elapsed_ms = (time.perf_counter() - started) * 1000
            ports.traffic.note_one(outcome.verdict, elapsed_ms, ports.clock())
            reply(*self._told(given, event_id, outcome, mode, elapsed_ms))

        ports.intake.offer(submission, decided)

    def _told(
        self, given: str | None, event_id: bytes, outcome: Outcome, mode: Mode, elapsed_ms: float
    ) -> tuple[int, Headers, bytes]:
        """The answer to a single event whose fate is known."""
        ports = self._ports
        if outcome.verdict in answer.TAKEN:
            shown = answer.public_id(given, event_id, outcome)
            result = answer.processing_result(outcome, shown, mode, elapsed_ms)
            status = 200 if outcome.verdict is Verdict.DUPLICATE else 202
            return status, [JSON_TYPE], orjson.dumps(result)
        limited = outcome.verdict is Verdict.LIMITED
        wait = answer.retry_after_s(
            outcome.retry_after_s, ports.settings.effective_idempotency_window_ms
        )
        text = answer.LIMITED if limited else answer.OVERLOADED
        body = orjson.dumps({"success": False, "error": text, "retryAfter": wait})
        return 429 if limited else 503, [JSON_TYPE, (b"retry-after", b"%d" % wait)], body

    async def batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST /events/batch``: each item has its own fate."""
        ports = self._ports
        self._may_ingest(scope)
        with ports.turns.waiting(scope), held(ports.requests, scope, MAX_BATCH_BODY_BYTES):
            await self._batch(scope, receive, send)

    async def _batch(self, scope: Scope, receive: Receive, send: Send) -> None:
        ports = self._ports
        started = time.perf_counter()
        content_type, encoding, given_key, given_trace = headers(scope, *_HEADERS)
        media = media_type(content_type, (JSON, NDJSON))
        key = _idempotency_key(given_key)
        body = await read_body(scope, receive, MAX_BATCH_BODY_BYTES)
        report = answer.BatchReport(ports.settings.effective_idempotency_window_ms)
        async with ports.turns.turn(len(body)):
            items = parse_batch(decompress(body, encoding, MAX_DECOMPRESSED_BYTES), media)
            if not items:
                raise InvalidEvent([("events", "must hold at least one event")])
            room = ports.gatherer.room
            if not await ports.turns.until(lambda: room.fits(len(items)), started):
                raise overloaded(ports.gatherer.room_in_s())
            trace = trace_context(given_trace)
            places, submissions = await self._take_apart(items, key, trace, report)
        outcomes = await ports.intake.submit(submissions) if submissions else []
        for (index, event_type), outcome in zip(places, outcomes, strict=True):
            report.settle(index, event_type, outcome)
        elapsed_ms = (time.perf_counter() - started) * 1000
        ports.traffic.note(outcomes, elapsed_ms, ports.clock(), invalid=report.totals["invalid"])
        status, result, more = report.answer(elapsed_ms)
        raw = [(name.lower().encode(), value.encode()) for name, value in more.items()]
        await send_json(send, status, result, raw)

    async def _take_apart(
        self, items: Sequence[Any], key: str | None, trace: str | None, report: answer.BatchReport
    ) -> tuple[list[tuple[int, EventType]], list[Submission]]:
        """The valid items as submissions, each with its place and type; the rest is reported."""
        ports = self._ports
        places: list[tuple[int, EventType]] = []
        submissions: list[Submission] = []
        event_ids, now_s = ports.mint_many(len(items))
        for index, item in enumerate(items):
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
            try:
                event = validate_item(item, now_s=now_s, rules=ports.rules)
            except InvalidEvent as error:
                report.refuse(index, item_type(item), error)
                log.debug("not valid", fields=[name for name, _ in error.details])
                continue
            item_key = f"{key}:{index}" if key else None
            submissions.append(
                ports.router.route(
                    event, event_ids[index], idempotency_key=item_key, traceparent=trace
                )
            )
            places.append((index, event.type))
        return places, submissions


def _idempotency_key(key: str | None) -> str | None:
    """What an ``Idempotency-Key`` says, with or without its quotes."""
    if key is None:
        return None
    key = key.strip().strip('"')
    if not key or len(key) > _MAX_KEY_CHARS or not key.isprintable():
        raise MalformedRequest(
            f"Idempotency-Key must have 1 to {_MAX_KEY_CHARS} printable characters"
        )
    return key
