"""The figures of campaigns as the API answers them, and as it describes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import pytest_asyncio

from ray_tracking.analytics import EmailAnalyticsService
from ray_tracking.http.openapi import document
from tests.support.events import item
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
COMPONENTS = document("http://127.0.0.1:8000")["components"]


def at(minutes: float) -> str:
    """A moment some minutes after the start, as an answer writes it."""
    moment = START + timedelta(minutes=minutes)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def send(shared: Stack, campaign: str, *sent: tuple[str, str, float, dict[str, Any]]) -> None:
    """Send events of leads, and return when they are counted."""
    for kind, lead, minutes, more in sent:
        entry = item(kind, campaignId=campaign, leadId=lead, timestamp=at(minutes), **more)
        answer = await shared.services[0].post("/events", entry)
        assert answer.status == 202, answer.body
    await shared.scribes[0].writer.drain()


async def read(service: Service, path: str, schema: str) -> Any:
    """An answer that is as it is described."""
    answer = await service.get(path)
    assert answer.status == 200, answer.body
    described = {"$ref": f"#/components/schemas/{schema}", "components": COMPONENTS}
    jsonschema.Draft202012Validator(described).validate(answer.json)
    return answer.json


async def pages(service: Service, path: str, schema: str, limit: int) -> list[Any]:
    """All items, page by page."""
    found = await read(service, f"{path}limit={limit}", schema)
    items = found["items"]
    while found["next"]:
        assert len(found["items"]) == limit
        found = await read(service, f"{path}limit={limit}&after={found['next']}", schema)
        items += found["items"]
    return list(items)


@pytest.fixture(scope="module")
def campaign() -> str:
    return f"campaign-{uuid4()}"


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def sent(shared: Stack, service: Service, campaign: str) -> None:
    """Some hours of one campaign."""
    offer = {"linkUrl": "https://example.com/offer"}
    phone = {"deviceInfo": {"type": "mobile"}, "locationInfo": {"country": "DE"}}
    await send(
        shared,
        campaign,
        ("EMAIL_SENT", "a", 0, {}),
        ("EMAIL_SENT", "b", 1, {}),
        ("EMAIL_OPEN", "a", 61, phone),
        ("EMAIL_OPEN", "a", 62, phone),
        ("EMAIL_OPEN", "b", 60 * 24, {}),
        ("LINK_CLICK", "a", 62.5, offer | {"linkId": "top"} | phone),
        ("LINK_CLICK", "a", 62.6, offer | {"linkId": "top"}),
        ("LINK_CLICK", "b", 62.7, offer | {"linkId": "top"}),
        ("LINK_CLICK", "b", 62.8, offer | {"linkId": "foot"}),
        ("LINK_CLICK", "b", 62.9, {"linkUrl": "https://example.com/" + "x" * 8000}),
        ("EMAIL_BOUNCE", "c", 5, {"bounceType": "soft"}),
    )
    machine = service.ports.tokens.mint_open(campaign, "z", "mail", minted_at_s=0)
    await service.call("HEAD", f"/pixel/{machine}")
    await shared.scribes[0].writer.drain()


async def test_a_timeline_has_the_buckets_in_which_something_happened(
    service: Service, campaign: str
) -> None:
    path = f"/campaigns/{campaign}/timeline?"
    hours = await read(service, path, "Timeline")
    days = await read(service, path + "bucket=day", "Timeline")
    minutes = await pages(service, path + "bucket=minute&", "Timeline", 2)

    assert hours == {
        "items": [
            {"bucketStart": at(0), "counts": {"EMAIL_SENT": 2, "EMAIL_BOUNCE": 1}},
            {"bucketStart": at(60), "counts": {"EMAIL_OPEN": 2, "LINK_CLICK": 5}},
            {"bucketStart": at(60 * 24), "counts": {"EMAIL_OPEN": 1}},
        ],
        "next": None,
    }
    assert [entry["bucketStart"] for entry in days["items"]] == [at(-600), at(-600 + 60 * 24)]
    assert [entry["bucketStart"] for entry in minutes] == [
        at(0), at(1), at(5), at(61), at(62), at(60 * 24)
    ]  # fmt: skip


async def test_a_span_takes_the_bucket_that_it_begins_in(service: Service, campaign: str) -> None:
    path = f"/campaigns/{campaign}/timeline?from={at(61)}&to={at(60 * 24)}"
    found = await read(service, path, "Timeline")

    assert [entry["bucketStart"] for entry in found["items"]] == [at(60)]


async def test_the_sums_of_a_timeline_are_the_totals(service: Service, campaign: str) -> None:
    stats = await read(service, f"/campaigns/{campaign}/stats", "CampaignStats")
    for bucket in ("minute", "hour", "day"):
        path = f"/campaigns/{campaign}/timeline?bucket={bucket}"
        items = (await read(service, path, "Timeline"))["items"]
        opens = sum(entry["counts"].get("EMAIL_OPEN", 0) for entry in items)
        clicks = sum(entry["counts"].get("LINK_CLICK", 0) for entry in items)
        assert (opens, clicks) == (stats["opens"], stats["clicks"]) == (3, 5)
    assert stats["machineOpens"] == 1


async def test_links_are_told_apart_by_url_and_id(service: Service, campaign: str) -> None:
    path = f"/campaigns/{campaign}/links?"
    found = await read(service, path, "LinkPage")
    short = [link for link in found["items"] if len(link["linkUrl"]) < 100]

    assert short == [
        {"linkUrl": "https://example.com/offer", "linkId": "top", "clicks": 3, "uniqueClicks": 2},
        {"linkUrl": "https://example.com/offer", "linkId": "foot", "clicks": 1, "uniqueClicks": 1},
    ]
    assert len(found["items"]) == 3
    assert await pages(service, path, "LinkPage", 1) == found["items"]


async def test_a_breakdown_counts_people_by_device_and_country(
    service: Service, campaign: str
) -> None:
    found = await read(service, f"/campaigns/{campaign}/breakdown", "Breakdown")

    assert found == {
        "campaignId": campaign,
        "devices": [{"name": None, "count": 5}, {"name": "mobile", "count": 3}],
        "countries": [{"name": None, "count": 5}, {"name": "DE", "count": 3}],
        "bounces": {"hard": 0, "soft": 1, "complaint": 0, "suppression": 0},
    }


async def test_one_lead_has_its_story(service: Service, campaign: str) -> None:
    path = f"/campaigns/{campaign}/leads/b"
    found = await read(service, path, "LeadStory")
    none = await read(service, f"/campaigns/{campaign}/leads/nobody", "LeadStory")

    assert found["state"] == {
        "sent": 1, "delivered": 0, "opened": True, "clicked": True, "replied": False,
        "bounced": False, "opens": 1, "clicks": 3, "replies": 0,
        "bounces": {"hard": 0, "soft": 0, "complaint": 0, "suppression": 0},
        "machineOpens": 0, "machineClicks": 0, "firstEventAt": at(1), "lastEventAt": at(60 * 24),
    }  # fmt: skip
    assert [entry["eventData"]["leadId"] for entry in found["items"]] == ["b"] * 5
    assert await pages(service, path + "?", "LeadStory", 2) == found["items"]
    assert (none["items"], none["state"]["opened"], none["state"]["firstEventAt"]) == (
        [], False, None
    )  # fmt: skip


async def test_campaigns_are_listed_with_their_totals(
    service: Service, shared: Stack, campaign: str
) -> None:
    others = [f"{campaign} {number}" for number in range(4)]
    for other in others:
        await send(shared, other, ("EMAIL_OPEN", "a", 0, {}))
    found = await pages(service, "/campaigns?", "CampaignPage", 2)
    stats = await read(service, f"/campaigns/{campaign}/stats", "CampaignStats")

    assert [entry["campaignId"] for entry in found] == [campaign, *others]
    assert found[0] | {"asOf": 0} == stats | {"asOf": 0}


async def test_a_campaign_is_verified(service: Service, campaign: str) -> None:
    found = await read(service, f"/campaigns/{campaign}/verify", "Check")

    assert (found["equal"], found["differences"]) == (True, 0)
    assert {"figure": "opens", "rollup": 3, "recount": 3} in found["figures"]
    stats = await read(service, f"/campaigns/{campaign}/stats", "CampaignStats")
    shown = {one["figure"]: one["rollup"] for one in found["figures"]}
    for name in ("uniqueOpens", "machineOpens", "firstEventAt", "lastEventAt"):
        assert shown.get(name, 0) == stats[name]
    assert found["compared"] > len(found["figures"])


@pytest.mark.parametrize("what", ["timeline", "links", "breakdown", "verify", "leads/l"])
async def test_a_campaign_never_seen_is_empty(service: Service, what: str) -> None:
    answer = await service.get(f"/campaigns/never%20seen/{what}")

    assert answer.status == 200
    assert answer.json.get("items", []) == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("timeline?bucket=week", "bucket"),
        ("timeline?from=yesterday", "from"),
        ("timeline?limit=0", "limit"),
        ("timeline?after=x", "after"),
        ("timeline?after=WyJ4Il0", "after"),
        ("links?limit=1001", "limit"),
        ("links?after=WyJ4Il0", "after"),
        ("links?after=WzEsInh5Il0", "after"),
        ("leads/x?after=!", "after"),
        ("leads/%00", "leadId"),
    ],
)
async def test_what_is_wrong_is_named(service: Service, path: str, field: str) -> None:
    answer = await service.get(f"/campaigns/c/{path}")

    assert answer.status == 422, answer.body
    assert [detail["field"] for detail in answer.json["details"]] == [field]


async def test_the_views_say_what_the_api_says(
    service: Service, shared: Stack, campaign: str
) -> None:
    stats = await read(service, f"/campaigns/{campaign}/stats", "CampaignStats")
    (row,) = await shared.sql("SELECT * FROM campaign_stats WHERE campaign_id = $1", campaign)
    hours = await shared.sql(
        "SELECT sum(events)::int AS n FROM campaign_timeline WHERE campaign_id = $1 "
        "AND bucket = 'hour' AND event_type = 'EMAIL_OPEN' AND NOT is_machine",
        campaign,
    )

    assert (row["opens"], row["unique_opens"], row["soft_bounces"]) == (3, 2, 1)
    assert (row["open_rate"], row["click_rate"], row["reply_rate"], row["bounce_rate"]) == tuple(
        stats["rates"][name] for name in ("open", "click", "reply", "bounce")
    )
    assert hours[0]["n"] == stats["opens"]


async def test_python_says_what_the_api_says(
    service: Service, shared: Stack, campaign: str
) -> None:
    async def api(path: str) -> Any:
        return (await service.get(f"/campaigns/{campaign}/{path}")).json

    stats = await api("stats")
    async with EmailAnalyticsService(shared.database_url, shared.schema) as analytics:
        assert await analytics.campaign_stats(campaign) | {"asOf": 0} == stats | {"asOf": 0}
        listed = [one async for one in analytics.campaigns() if one["campaignId"] == campaign]
        assert listed[0] | {"asOf": 0} == stats | {"asOf": 0}
        assert (
            await analytics.timeline(campaign, "minute")
            == (await api("timeline?bucket=minute"))["items"]
        )
        assert await analytics.links(campaign) == (await api("links"))["items"]
        assert await analytics.breakdown(campaign) == await api("breakdown")
        assert await analytics.lead(campaign, "b") == (await api("leads/b"))["state"]
        assert await analytics.verify(campaign) == await api("verify")
