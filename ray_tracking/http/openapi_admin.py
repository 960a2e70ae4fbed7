"""What needs the scope ``admin``, for ``/openapi.json``: letters, replays, leads, limits."""

from __future__ import annotations

from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.openapi_answers import ref
from ray_tracking.http.openapi_parts import (
    ENCODING,
    PAGE,
    Object,
    answer,
    content,
    operation,
    parameter,
    refusals,
)
from ray_tracking.pipeline.receive import JSON

_CHOSEN_LETTERS = [
    parameter("query", "campaignId", {"type": "string", "minLength": 1}),
    parameter(
        "query",
        "reason",
        {"type": "string", "minLength": 1},
        "A part of the failureReason, in upper or lower case, or an sqlstate.",
    ),
]


def admin_paths(campaign: Object) -> Object:
    """Every route by which an operator changes something."""
    return {**_dead_letters(), **_replays(), **_leads(), **_limits(campaign)}


def _dead_letters() -> Object:
    tag, scope = "dead letters", "admin"
    letter = [parameter("path", "letter_id", {"type": "string"}, "The event's own id.")]
    page = answer("A page.", "DeadLetterPage", page={"items": [examples.LETTER], "next": None})
    browse = operation(
        "listDeadLetters",
        tag,
        "Those that failed last first",
        scope,
        {"200": page, **refusals(405, 422, 503)},
        parameters=[*_CHOSEN_LETTERS, parameter("query", "status", ref("LetterStatus")), *PAGE],
    )
    show = operation(
        "deadLetter",
        tag,
        "One letter",
        scope,
        {
            "200": answer("It.", "DeadLetter", letter=examples.LETTER),
            **refusals(404, 405, 503),
        },
        parameters=letter,
    )
    discard = operation(
        "discardDeadLetter",
        tag,
        "Give it up: it stays to be seen, and never becomes a row",
        scope,
        {
            "200": answer("It is discarded, or was already.", "Discarded"),
            **refusals(404, 405, 409, 503),
        },
        parameters=letter,
    )
    redrive = operation(
        "redriveDeadLetter",
        tag,
        "Send it to the log again",
        scope,
        {"202": answer("The log has it.", "Redriven"), **refusals(404, 405, 409, 503)},
        parameters=letter,
    )
    redrive_many = operation(
        "redriveDeadLetters",
        tag,
        "Send all to the log again that are dead now, or those chosen in the query or the body",
        scope,
        {
            "202": answer("The log has them.", "RedriveResult", redriven=examples.REDRIVEN),
            "207": answer("It has some of them.", "RedriveResult", "Retry-After"),
            "503": {
                "description": "It has none of them, or Postgres cannot be asked. Come again.",
                "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
                "content": {JSON: {"schema": {"anyOf": [ref("RedriveResult"), ref("ComeAgain")]}}},
            },
            **refusals(400, 405, 413, 415, 422),
        },
        parameters=[*_CHOSEN_LETTERS, ENCODING],
        requestBody={"content": content("RedriveRequest", **examples.REDRIVE_REQUESTS)},
    )
    return {
        "/dead-letters": {"get": browse},
        "/dead-letters/redrive": {"post": redrive_many},
        "/dead-letters/{letter_id}": {"get": show, "delete": discard},
        "/dead-letters/{letter_id}/redrive": {"post": redrive},
    }


def _replays() -> Object:
    tag, scope = "replays", "admin"
    replay = [parameter("path", "replay_id", {"type": "string"})]
    browse = operation(
        "listReplays", tag, "Replays, the newest first", scope,
        {"200": answer("A page.", "ReplayPage"), **refusals(405, 422, 503)}, parameters=PAGE,
    )  # fmt: skip
    ask = operation(
        "startReplay",
        tag,
        "Count a campaign's figures anew, as a Ray job",
        scope,
        {
            "202": answer(
                "It is on its way.", "ReplayAccepted", accepted=examples.REPLAY_ACCEPTED
            ),
            **refusals(400, 405, 409, 413, 415, 422, 503),
        },
        parameters=[
            parameter("header", "Idempotency-Key", {"type": "string"},
                       "The same key is the same replay, however often it is sent."),
            ENCODING,
        ],
        requestBody={
            "required": True,
            "content": content("ReplayBody", replay=examples.REPLAY_REQUEST),
        },
    )  # fmt: skip
    show = operation(
        "replay", tag, "One replay, and how far it is", scope,
        {"200": answer("It.", "Replay"), **refusals(404, 405, 503)}, parameters=replay,
    )  # fmt: skip
    stop = operation(
        "stopReplay", tag, "Stop it; no figure has changed then", scope,
        {"200": answer("It has stopped.", "ReplayStopped"), **refusals(404, 405, 409, 503)},
        parameters=replay,
    )  # fmt: skip
    return {
        "/replays": {"get": browse, "post": ask},
        "/replays/{replay_id}": {"get": show, "delete": stop},
    }


def _leads() -> Object:
    lead = [parameter("path", "lead_id", {"type": "string"})]
    export = operation(
        "exportLead", "leads", "Everything of one lead, in all campaigns", "admin",
        {"200": answer("All of it.", "LeadExport"), **refusals(405, 422, 503)}, parameters=lead,
    )  # fmt: skip
    erase = operation(
        "eraseLead", "leads", "Erase it; what is still on its way is discarded", "admin",
        {"200": answer("The receipt.", "LeadErased"), **refusals(405, 422, 503)},
        parameters=lead,
    )  # fmt: skip
    return {"/leads/{lead_id}/export": {"get": export}, "/leads/{lead_id}": {"delete": erase}}


def _limits(campaign: Object) -> Object:
    tag, answers = "limits", {"200": answer("The limits in force.", "Limits")}
    show = operation(
        "limits", tag, "What a campaign may send", "read",
        {**answers, **refusals(405, 422, 503)}, parameters=[campaign],
    )  # fmt: skip
    put = operation(
        "setLimits", tag, "Let a campaign send more or less than the others", "admin",
        {**answers, **refusals(400, 405, 409, 413, 415, 422, 503)},
        parameters=[campaign, ENCODING],
        requestBody={"required": True, "content": content("LimitsBody")},
        description="They stand in the place of those before: what is left out or null is as for "
        "the other campaigns. In force within two seconds, and after every restart.",
    )  # fmt: skip
    delete = operation(
        "resetLimits", tag, "Let it send as much as the others again; may be repeated", "admin",
        {**answers, **refusals(405, 422, 503)}, parameters=[campaign],
    )  # fmt: skip
    return {"/campaigns/{campaign_id}/limits": {"get": show, "put": put, "delete": delete}}
