"""The reading API, for ``/openapi.json``."""

from __future__ import annotations

from ray_tracking.http.openapi_answers import ref
from ray_tracking.http.openapi_live import EVENT_STREAM, LIVE_PARAMETERS
from ray_tracking.http.openapi_parts import (
    PAGE,
    Object,
    answer,
    content,
    operation,
    parameter,
    refusals,
)
from ray_tracking.http.paging import MAX_LIMIT
from ray_tracking.pipeline.receive import NDJSON
from ray_tracking.stores.folding import BUCKETS


def reading_paths(campaign: Object) -> Object:
    """Every route that shows campaigns."""

    def read(operation_id: str, summary: str, schema: str, *parameters: Object) -> Object:
        answers = {"200": answer("Found.", schema), **refusals(405, 422, 503)}
        return {
            "get": operation(
                operation_id, "reading", summary, "read", answers, parameters=list(parameters)
            )
        }

    bucket: Object = {"enum": list(BUCKETS), "default": "hour"}
    time = {"type": "string", "format": "date-time"}
    lead = parameter("path", "lead_id", {"type": "string"})
    limit: Object = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": MAX_LIMIT}
    of = "/campaigns/{campaign_id}"
    return {
        "/campaigns": read(
            "campaigns", "The totals of every campaign, by its id", "CampaignPage", *PAGE
        ),
        f"{of}/stats": read(
            "campaignStats", "A campaign's totals; zeros for one never seen", "CampaignStats",
            campaign,
        ),
        f"{of}/timeline": read(
            "campaignTimeline", "Events by minute, hour or day", "Timeline", campaign,
            parameter("query", "bucket", bucket),
            parameter("query", "from", time, "The bucket that this is in, and later ones."),
            parameter("query", "to", time, "Buckets that begin before this time."),
            parameter("query", "limit", limit),
            PAGE[1],
        ),
        f"{of}/links": read(
            "campaignLinks", "The links that were clicked, most clicks first", "LinkPage",
            campaign, *PAGE,
        ),
        f"{of}/breakdown": read(
            "campaignBreakdown", "Devices, countries, and why mail came back", "Breakdown", campaign
        ),
        f"{of}/verify": read(
            "verifyCampaign", "The figures against a recount of the rows", "Check", campaign
        ),
        f"{of}/events": {"get": _campaign_events(campaign)},
        f"{of}/leads/{{lead_id}}": read(
            "campaignLead", "What one lead has done", "LeadStory", campaign, lead, *PAGE
        ),
        f"{of}/live": {
            "get": operation(
                "campaignLive",
                "live",
                "A campaign as it happens, as server-sent events",
                "read",
                {"200": EVENT_STREAM, **refusals(405, 422)},
                parameters=[campaign, *LIVE_PARAMETERS],
            )
        },
    }  # fmt: skip


def _campaign_events(campaign: Object) -> Object:
    time = {"type": "string", "format": "date-time"}
    body = content("StoredEventPage")
    body[NDJSON] = {
        "schema": {"type": "string", "description": "All of them, a StoredEvent a line."}
    }
    return operation(
        "campaignEvents",
        "reading",
        "A campaign's events, newest first; all of them with Accept: application/x-ndjson",
        "read",
        {
            "200": {"description": "A page, or all.", "content": body},
            **refusals(405, 422, 503),
        },
        parameters=[
            campaign,
            parameter("query", "type", ref("EventType")),
            parameter("query", "from", time, "The first of the events' own times."),
            parameter("query", "to", time, "Before this time."),
            *PAGE,
        ],
    )
