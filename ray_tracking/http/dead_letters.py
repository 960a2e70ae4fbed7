"""Dead letters over the API: look at them, send them again, give them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.errors import InvalidEvent, MalformedRequest
from ray_tracking.http.asgi import read_decoded
from ray_tracking.http.guard import needs
from ray_tracking.http.paging import page, read_page
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.gather import Verdict
from ray_tracking.pipeline.letters import NOT_TAKEN, LetterStatus, RedriveRun, resubmit, show
from ray_tracking.pipeline.receive import JSON, MAX_BODY_BYTES, media_type, parse_json
from ray_tracking.stores.dead_letters import DeadLetterStore, LetterFilter

#: So many letters of a redrive are in memory at a time, and on their way to the log.
CHUNK = 200
_CHOOSERS = ("campaignId", "reason")


class DeadLetters:
    """
    The calls about dead letters.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports

    @needs("admin")
    async def browse(self, request: Request) -> Response:
        """``GET /dead-letters``: those that failed last first."""
        given = request.query_params
        wrong: list[tuple[str, str]] = []
        chosen = _read_filter(
            [(name, text) for name, text in given.items() if name in _CHOOSERS], wrong
        )
        if (status := given.get("status")) is not None:
            try:
                chosen = chosen._replace(status=LetterStatus(status))
            except ValueError:
                wrong.append(("status", f"is not one of {', '.join(LetterStatus)}"))
        limit, after = read_page(given, wrong)
        if wrong:
            raise InvalidEvent(wrong)
        letters, following = await self._store.page(chosen, limit=limit, after=after)
        return page([show(letter) for letter in letters], following)

    @needs("admin")
    async def one(self, request: Request) -> Response:
        """``GET /dead-letters/{id}``, and ``DELETE``, which may be repeated."""
        if request.method != "DELETE":
            return JSONResponse(show(await self._find(request)))
        letter_id = _read_id(request)
        status = await self._store.discard(letter_id)
        if status is None:
            raise HTTPException(404)
        if status != LetterStatus.DISCARDED:
            raise HTTPException(409, f"the letter is {status}, and is not given up")
        return JSONResponse({"success": True, "id": str(letter_id), "status": status})

    @needs("admin")
    async def redrive(self, request: Request) -> Response:
        """``POST /dead-letters/{id}/redrive``: 202 when the log has it."""
        letter = await self._find(request)
        if letter["status"] != LetterStatus.DEAD:
            raise HTTPException(409, f"the letter is {letter['status']} already")
        # Past the intake: what is in Postgres already needs no spool.
        (outcome,) = await self.ports.gatherer.submit([resubmit(letter)])
        if outcome.verdict is not Verdict.ACCEPTED:
            wait = answer.retry_after_s(outcome.retry_after_s, self._idempotency_window_ms)
            body = {"success": False, "error": NOT_TAKEN, "retryAfter": wait}
            return JSONResponse(body, 503, {"Retry-After": str(wait)})
        return JSONResponse({"success": True, "id": str(letter["id"]), "redriven": 1}, 202)

    @needs("admin")
    async def redrive_many(self, request: Request) -> Response:
        """
        ``POST /dead-letters/redrive``: those of a campaign, for a reason, or all.

        No filter means all of them, which does no harm; a filter with a name that is
        not known is refused, so that no slip means all of them.
        """
        wrong: list[tuple[str, str]] = []
        given = [*request.query_params.multi_items(), *(await _read_object(request)).items()]
        chosen = _read_filter(given, wrong)
        if wrong:
            raise InvalidEvent(wrong)
        run = RedriveRun()
        async for letters in self._store.dead(chosen, chunk=CHUNK):
            submissions = run.choose(resubmit(letter) for letter in letters)
            if submissions:
                run.settle(submissions, await self.ports.gatherer.submit(submissions))
        status, body, headers = run.answer(self._idempotency_window_ms)
        return JSONResponse(body, status, headers)

    @property
    def _store(self) -> DeadLetterStore:
        return self.ports.queries.dead_letters

    @property
    def _idempotency_window_ms(self) -> int:
        return self.ports.settings.effective_idempotency_window_ms

    async def _find(self, request: Request) -> Mapping[str, Any]:
        letter = await self._store.find(_read_id(request))
        if letter is None:
            raise HTTPException(404)
        return letter


def _read_id(request: Request) -> UUID:
    """The letter in the path. What is no id at all is as unknown as any other."""
    try:
        return UUID(request.path_params["letter_id"])
    except ValueError:
        raise HTTPException(404) from None


async def _read_object(request: Request) -> dict[str, Any]:
    """
    The fields of a body that may be absent.

    Raises:
        RequestError: If it is something else than a JSON object.
    """
    body = await read_decoded(request.scope, request.receive, MAX_BODY_BYTES)
    if not body:
        return {}
    media_type(request.headers.get("content-type"), (JSON,))
    value = parse_json(body)
    if not isinstance(value, dict):
        raise MalformedRequest('the body must be an object such as {"campaignId": "…"}')
    return value


def _read_filter(given: Iterable[tuple[str, Any]], wrong: list[tuple[str, str]]) -> LetterFilter:
    """
    Which letters are meant.

    Args:
        given: Names and values, from the query or the body.
        wrong: Gets an entry for each that is.
    """
    chosen: dict[str, str] = {}
    for name, value in given:
        if name not in _CHOOSERS:
            wrong.append((name, f"is not a filter; there are {' and '.join(_CHOOSERS)}"))
        elif name in chosen:
            wrong.append((name, "is given twice"))
        elif not isinstance(value, str) or not value:
            wrong.append((name, "must be a text, or be left out"))
        elif "\0" in value:
            wrong.append((name, "must not contain control characters"))
        else:
            chosen[name] = value
    return LetterFilter(chosen.get("campaignId"), chosen.get("reason"))
