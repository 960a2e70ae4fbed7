"""Every route of the API, for ``/openapi.json``: what it takes, and what it answers."""

from __future__ import annotations

from typing import Any

from ray_tracking.events import MAX_BATCH_EVENTS
from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.openapi_answers import ref
from ray_tracking.http.openapi_dashboard import dashboard_paths
from ray_tracking.http.openapi_live import EVENT_STREAM, LIVE_PARAMETERS
from ray_tracking.http.paging import DEFAULT_LIMIT, MAX_LIMIT
from ray_tracking.pipeline.receive import JSON, NDJSON
from ray_tracking.stores.folding import BUCKETS

_Object = dict[str, Any]


def _content(schema: str, **shown: Any) -> _Object:
    media: _Object = {"schema": ref(schema)}
    if shown:
        media["examples"] = {name: {"value": value} for name, value in shown.items()}
    return {JSON: media}


def _answer(text: str, schema: str, *headers: str, **shown: Any) -> _Object:
    answer: _Object = {"description": text, "content": _content(schema, **shown)}
    if headers:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return answer


HEADERS: _Object = {
    "Retry-After": {
        "description": "Seconds to wait; never longer than an eventId is remembered.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-Tracking-Durable": {
        "description": "1 when the event was durable before this answer. Absent when the answer "
        "could not wait any longer; the event is then still on its way.",
        "schema": {"const": "1"},
    },
    "WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}},
    "Allow": {"description": "The methods that are answered.", "schema": {"type": "string"}},
    "Location": {
        "description": "The link, byte for byte as it was given.",
        "schema": {"type": "string", "format": "uri"},
    },
}


def responses() -> _Object:
    """The refusals, by status: each is the same wherever it occurs."""
    return {
        "400": _answer("The body cannot be read.", "Error"),
        "401": _answer("No key, or an unknown one.", "Error", "WWW-Authenticate"),
        "403": _answer("The key lacks the scope.", "Error"),
        "404": _answer("There is none.", "Error"),
        "405": _answer("Another method.", "Error", "Allow"),
        "409": _answer("Its status does not allow it; the text names the status.", "Error"),
        "413": _answer("The body is too large, or the batch has too many events.", "Error"),
        "415": _answer("A body of another type; the text names the header to send.", "Error"),
        "422": _answer("Something is not valid.", "Invalid", invalid=examples.INVALID),
        "429": _answer("Over the rate of campaign or client.", "ComeAgain", "Retry-After"),
        "503": _answer("Full, or out of reach. Come again.", "ComeAgain", "Retry-After"),
    }


def _refusals(*statuses: int) -> _Object:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _operation(
    operation_id: str, tag: str, summary: str, scope: str | None, responses: _Object, **more: Any
) -> _Object:
    if scope is not None:
        responses = _refusals(401, 403, 429) | responses
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [] if scope is None else [{"bearer": [scope]}],
        **more,
        "responses": dict(sorted(responses.items())),
    }


def _parameter(place: str, name: str, schema: _Object, text: str = "") -> _Object:
    parameter: _Object = {"name": name, "in": place, "schema": schema}
    if place == "path":
        parameter["required"] = True
    return parameter | ({"description": text} if text else {})


def paths() -> _Object:
    """Every route of :class:`ray_tracking.http.app.App`, and what it answers."""
    campaign = _parameter("path", "campaign_id", {"type": "string"})
    return {
        "/events": {"post": _single("sendEvent", "Send one event")},
        "/webhook/tracking": {"post": _single("sendEventToWebhook", "The same as /events")},
        "/events/batch": {"post": _batch()},
        "/tracking-links": {"post": _links()},
        "/pixel/{token}": _pixel("path", "token", "Pixel"),
        "/pixel": _pixel("query", "t", "PixelByQuery"),
        "/click/{token}": _click("path", "token", "Click"),
        "/click": _click("query", "t", "ClickByQuery"),
        **_reading(campaign),
        **_dead_letters(),
        **_replays(),
        **_leads(),
        **_limits(campaign),
        "/campaigns/{campaign_id}/live": {
            "get": _operation(
                "campaignLive",
                "live",
                "A campaign as it happens, as server-sent events",
                "read",
                {"200": EVENT_STREAM, **_refusals(405, 422)},
                parameters=[campaign, *LIVE_PARAMETERS],
            )
        },
        "/metrics/tracking": {
            "get": _operation(
                "processingStats",
                "service",
                "The whole cluster's figures",
                "read",
                {"200": _answer("The figures.", "ProcessingStats"), **_refusals(405, 503)},
            )
        },
        "/dashboard/tracking-metrics": {
            "get": _operation(
                "dashboardStats",
                "service",
                "The same under the names that older dashboards ask for",
                "read",
                {"200": _answer("The figures.", "DashboardStats"), **_refusals(405, 503)},
            )
        },
        "/asyncapi.json": {
            "get": _operation(
                "asyncapi",
                "live",
                "AsyncAPI 3 of what is said over /ws",
                None,
                {
                    "200": {
                        "description": "The document.",
                        "content": {JSON: {"schema": {"type": "object"}}},
                    },
                    **_refusals(405),
                },
            )
        },
        **dashboard_paths(),
        "/metrics": {
            "get": _operation(
                "metrics",
                "service",
                "The whole cluster's figures, for Prometheus",
                "read",
                {
                    "200": {
                        "description": "Prometheus text.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    **_refusals(405, 503),
                },
            )
        },
        "/livez": {"get": _text("livez", "Is it alive")},
        "/readyz": {"get": _text("readyz", "Does it take events", why_not="Why not.")},
        "/config": {"get": _config()},
        "/health/tracking": {"get": _health("health", "How every part is", "HealthStatus")},
        "/health/tracking/{component}": {"get": _component()},
        "/openapi.json": {"get": _json("openapi", "This description")},
        "/-/healthz": {"get": _text("proxyHealth", "As Ray Serve's own proxy answers it")},
        "/-/routes": {"get": _json("proxyRoutes", "As Ray Serve's own proxy answers it")},
    }


def _single(operation_id: str, summary: str) -> _Object:
    return _operation(
        operation_id,
        "ingest",
        summary,
        "ingest",
        {
            "202": _answer(
                "Accepted, and durable.", "ProcessingResult", accepted=examples.ACCEPTED
            ),
            "200": _answer("A duplicate.", "ProcessingResult", duplicate=examples.DUPLICATE),
            **_refusals(400, 405, 413, 415, 422, 429, 503),
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": _content("Event", **examples.EVENTS)},
    )


def _batch() -> _Object:
    content = _content("Batch", **examples.BATCH_JSON)
    content[NDJSON] = {
        "schema": {"type": "string", "description": "One event a line."},
        "examples": {"lines": {"value": examples.BATCH_NDJSON}},
    }
    wholly = {
        "429": _answer("Every item was over the rate.", "BatchResult", "Retry-After"),
        "503": _answer("No item could be taken now.", "BatchResult", "Retry-After"),
    }
    return _operation(
        "sendBatch",
        "ingest",
        f"Send 1 to {MAX_BATCH_EVENTS:,} events, each with its own fate",
        "ingest",
        {
            "200": _answer("All are processed or duplicates.", "BatchResult"),
            "207": _answer("Some were refused.", "BatchResult", partly=examples.PARTLY),
            **_refusals(400, 405, 413, 415, 422),
            **wholly,
        },
        parameters=_INGEST_HEADERS,
        requestBody={"required": True, "content": content},
    )


_INGEST_HEADERS = [
    _parameter(
        "header",
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 128},
        "Stands for the eventId where there is none; in a batch, with the item's index.",
    ),
    _parameter("header", "Content-Encoding", {"enum": ["gzip", "zstd", "identity"]}),
]


def _links() -> _Object:
    return _operation(
        "makeTrackingLinks",
        "ingest",
        "Make the pixel and the tracked links of one mail",
        "ingest",
        {
            "201": _answer("The links.", "TrackingLinks"),
            **_refusals(400, 405, 413, 415, 422),
        },
        requestBody={
            "required": True,
            "content": _content("LinkRequest", links=examples.LINK_REQUEST),
        },
    )


_DURABLE = {"X-Tracking-Durable": {"$ref": "#/components/headers/X-Tracking-Durable"}}


def _hit(name: str, summary: str, responses: _Object, place: str, parameter: str) -> _Object:
    text = "From POST /tracking-links." + (" With or without .gif." if "ixel" in name else "")
    parameters = [_parameter(place, parameter, {"type": "string"}, text)]
    heads = {status: {k: v for k, v in answer.items() if k != "content"}
             for status, answer in responses.items()}  # fmt: skip
    responses, heads = responses | _refusals(405), heads | _refusals(405)
    return {
        "get": _operation(f"get{name}", "hits", summary, None, responses, parameters=parameters),
        "head": _operation(
            f"head{name}", "hits", f"{summary}; stored as a machine's", None, heads,
            parameters=parameters,
        ),
    }  # fmt: skip


def _pixel(place: str, parameter: str, name: str) -> _Object:
    gif = {
        "description": "The pixel, whatever the token is and however the service is.",
        "headers": _DURABLE,
        "content": {"image/gif": {}},
    }
    return _hit(name, "An open; always a transparent pixel", {"200": gif}, place, parameter)


def _click(place: str, parameter: str, name: str) -> _Object:
    location = {"Location": {"$ref": "#/components/headers/Location"}}
    responses = {
        "302": {"description": "To the link inside the token.", "headers": _DURABLE | location},
        "404": {
            "description": "The token is not one of ours.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
    }
    return _hit(name, "A click; leads to the link", responses, place, parameter)


def _reading(campaign: _Object) -> _Object:
    def read(operation_id: str, summary: str, schema: str, *parameters: _Object) -> _Object:
        answers = {"200": _answer("Found.", schema), **_refusals(405, 422, 503)}
        return {
            "get": _operation(
                operation_id, "reading", summary, "read", answers, parameters=list(parameters)
            )
        }

    bucket: _Object = {"enum": list(BUCKETS), "default": "hour"}
    time = {"type": "string", "format": "date-time"}
    lead = _parameter("path", "lead_id", {"type": "string"})
    limit: _Object = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": MAX_LIMIT}
    of = "/campaigns/{campaign_id}"
    return {
        "/campaigns": read(
            "campaigns", "The totals of every campaign, by its id", "CampaignPage", *_PAGE
        ),
        f"{of}/stats": read(
            "campaignStats", "A campaign's totals; zeros for one never seen", "CampaignStats",
            campaign,
        ),
        f"{of}/timeline": read(
            "campaignTimeline", "Events by minute, hour or day", "Timeline", campaign,
            _parameter("query", "bucket", bucket),
            _parameter("query", "from", time, "The bucket that this is in, and later ones."),
            _parameter("query", "to", time, "Buckets that begin before this time."),
            _parameter("query", "limit", limit),
            _PAGE[1],
        ),
        f"{of}/links": read(
            "campaignLinks", "The links that were clicked, most clicks first", "LinkPage",
            campaign, *_PAGE,
        ),
        f"{of}/breakdown": read(
            "campaignBreakdown", "Devices, countries, and why mail came back", "Breakdown", campaign
        ),
        f"{of}/verify": read(
            "verifyCampaign", "The figures against a recount of the rows", "Check", campaign
        ),
        f"{of}/events": {"get": _campaign_events(campaign)},
        f"{of}/leads/{{lead_id}}": read(
            "campaignLead", "What one lead has done", "LeadStory", campaign, lead, *_PAGE
        ),
    }  # fmt: skip


def _campaign_events(campaign: _Object) -> _Object:
    time = {"type": "string", "format": "date-time"}
    content = _content("StoredEventPage")
    content[NDJSON] = {
        "schema": {"type": "string", "description": "All of them, a StoredEvent a line."}
    }
    return _operation(
        "campaignEvents",
        "reading",
        "A campaign's events, newest first; all of them with Accept: application/x-ndjson",
        "read",
        {
            "200": {"description": "A page, or all.", "content": content},
            **_refusals(405, 422, 503),
        },
        parameters=[
            campaign,
            _parameter("query", "type", ref("EventType")),
            _parameter("query", "from", time, "The first of the events' own times."),
            _parameter("query", "to", time, "Before this time."),
            *_PAGE,
        ],
    )


_PAGE = [
    _parameter(
        "query",
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    _parameter("query", "after", {"type": "string"}, "The `next` of the page before."),
]
_CHOSEN_LETTERS = [
    _parameter("query", "campaignId", {"type": "string", "minLength": 1}),
    _parameter(
        "query",
        "reason",
        {"type": "string", "minLength": 1},
        "A part of the failureReason, in upper or lower case, or an sqlstate.",
    ),
]


def _dead_letters() -> _Object:
    tag, scope = "dead letters", "admin"
    letter = [_parameter("path", "letter_id", {"type": "string"}, "The event's own id.")]
    page = _answer("A page.", "DeadLetterPage", page={"items": [examples.LETTER], "next": None})
    browse = _operation(
        "listDeadLetters",
        tag,
        "Those that failed last first",
        scope,
        {"200": page, **_refusals(405, 422, 503)},
        parameters=[*_CHOSEN_LETTERS, _parameter("query", "status", ref("LetterStatus")), *_PAGE],
    )
    show = _operation(
        "deadLetter",
        tag,
        "One letter",
        scope,
        {
            "200": _answer("It.", "DeadLetter", letter=examples.LETTER),
            **_refusals(404, 405, 503),
        },
        parameters=letter,
    )
    discard = _operation(
        "discardDeadLetter",
        tag,
        "Give it up: it stays to be seen, and never becomes a row",
        scope,
        {
            "200": _answer("It is discarded, or was already.", "Discarded"),
            **_refusals(404, 405, 409, 503),
        },
        parameters=letter,
    )
    redrive = _operation(
        "redriveDeadLetter",
        tag,
        "Send it to the log again",
        scope,
        {"202": _answer("The log has it.", "Redriven"), **_refusals(404, 405, 409, 503)},
        parameters=letter,
    )
    redrive_many = _operation(
        "redriveDeadLetters",
        tag,
        "Send all to the log again that are dead now, or those chosen in the query or the body",
        scope,
        {
            "202": _answer("The log has them.", "RedriveResult", redriven=examples.REDRIVEN),
            "207": _answer("It has some of them.", "RedriveResult", "Retry-After"),
            "503": {
                "description": "It has none of them, or Postgres cannot be asked. Come again.",
                "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
                "content": {JSON: {"schema": {"anyOf": [ref("RedriveResult"), ref("ComeAgain")]}}},
            },
            **_refusals(400, 405, 413, 415, 422),
        },
        parameters=_CHOSEN_LETTERS,
        requestBody={"content": _content("RedriveRequest", **examples.REDRIVE_REQUESTS)},
    )
    return {
        "/dead-letters": {"get": browse},
        "/dead-letters/redrive": {"post": redrive_many},
        "/dead-letters/{letter_id}": {"get": show, "delete": discard},
        "/dead-letters/{letter_id}/redrive": {"post": redrive},
    }


def _replays() -> _Object:
    tag, scope = "replays", "admin"
    replay = [_parameter("path", "replay_id", {"type": "string"})]
    browse = _operation(
        "listReplays", tag, "Replays, the newest first", scope,
        {"200": _answer("A page.", "ReplayPage"), **_refusals(405, 422, 503)}, parameters=_PAGE,
    )  # fmt: skip
    ask = _operation(
        "startReplay",
        tag,
        "Count a campaign's figures anew, as a Ray job",
        scope,
        {
            "202": _answer(
                "It is on its way.", "ReplayAccepted", accepted=examples.REPLAY_ACCEPTED
            ),
            **_refusals(400, 405, 409, 413, 415, 422, 503),
        },
        parameters=[
            _parameter("header", "Idempotency-Key", {"type": "string"},
                       "The same key is the same replay, however often it is sent."),
        ],
        requestBody={
            "required": True,
            "content": _content("ReplayBody", replay=examples.REPLAY_REQUEST),
        },
    )  # fmt: skip
    show = _operation(
        "replay", tag, "One replay, and how far it is", scope,
        {"200": _answer("It.", "Replay"), **_refusals(404, 405, 503)}, parameters=replay,
    )  # fmt: skip
    stop = _operation(
        "stopReplay", tag, "Stop it; no figure has changed then", scope,
        {"200": _answer("It has stopped.", "ReplayStopped"), **_refusals(404, 405, 409, 503)},
        parameters=replay,
    )  # fmt: skip
    return {
        "/replays": {"get": browse, "post": ask},
        "/replays/{replay_id}": {"get": show, "delete": stop},
    }


def _leads() -> _Object:
    lead = [_parameter("path", "lead_id", {"type": "string"})]
    export = _operation(
        "exportLead", "leads", "Everything of one lead, in all campaigns", "admin",
        {"200": _answer("All of it.", "LeadExport"), **_refusals(405, 422, 503)}, parameters=lead,
    )  # fmt: skip
    erase = _operation(
        "eraseLead", "leads", "Erase it; what is still on its way is discarded", "admin",
        {"200": _answer("The receipt.", "LeadErased"), **_refusals(405, 422, 503)},
        parameters=lead,
    )  # fmt: skip
    return {"/leads/{lead_id}/export": {"get": export}, "/leads/{lead_id}": {"delete": erase}}


def _limits(campaign: _Object) -> _Object:
    tag, answers = "limits", {"200": _answer("The limits in force.", "Limits")}
    show = _operation(
        "limits", tag, "What a campaign may send", "read",
        {**answers, **_refusals(405, 422, 503)}, parameters=[campaign],
    )  # fmt: skip
    put = _operation(
        "setLimits", tag, "Let a campaign send more or less than the others", "admin",
        {**answers, **_refusals(400, 405, 409, 413, 415, 422, 503)}, parameters=[campaign],
        requestBody={"required": True, "content": _content("LimitsBody")},
        description="They stand in the place of those before: what is left out or null is as for "
        "the other campaigns. In force within two seconds, and after every restart.",
    )  # fmt: skip
    delete = _operation(
        "resetLimits", tag, "Let it send as much as the others again; may be repeated", "admin",
        {**answers, **_refusals(405, 422, 503)}, parameters=[campaign],
    )  # fmt: skip
    return {"/campaigns/{campaign_id}/limits": {"get": show, "put": put, "delete": delete}}


def _config() -> _Object:
    return _operation(
        "config",
        "service",
        "The settings in force, and what was changed of them",
        "admin",
        {"200": _answer("Secrets are masked.", "Config"), **_refusals(405, 503)},
    )


def _health(operation_id: str, summary: str, schema: str, *parameters: _Object) -> _Object:
    return _operation(
        operation_id,
        "service",
        summary,
        "read",
        {
            "200": _answer("Healthy or degraded.", schema),
            "503": _answer("Unhealthy; with strict=1 also degraded.", schema),
            **_refusals(*([404] if parameters else []), 405),
        },
        parameters=[
            *parameters,
            _parameter("query", "strict", {"enum": ["0", "1"]}, "1: degraded is a 503 too."),
        ],
    )


def _component() -> _Object:
    name = _parameter("path", "component", {"type": "string"}, "As /health/tracking names it.")
    return _health("healthComponent", "How one part is", "ComponentStatus", name)


def _text(operation_id: str, summary: str, why_not: str = "") -> _Object:
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses: _Object = {"200": {"description": "Yes.", "content": content}, **_refusals(405)}
    if why_not:
        responses["503"] = {
            "description": why_not,
            "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
            "content": content,
        }
    return _operation(operation_id, "service", summary, None, responses)


def _json(operation_id: str, summary: str) -> _Object:
    content = {JSON: {"schema": {"type": "object"}}}
    responses = {"200": {"description": summary + ".", "content": content}, **_refusals(405)}
    return _operation(operation_id, "service", summary, None, responses)
