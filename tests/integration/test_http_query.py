"""Reading back: the figures and the events of a campaign, as they were accepted."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.support.events import item
from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

START = datetime(2026, 11, 20, tzinfo=UTC)
LINES = {"Accept": "application/x-ndjson"}
ZERO_STATS = {
    "sent": 0,
    "delivered": 0,
    "opens": 0,
    "uniqueOpens": 0,
    "clicks": 0,
    "uniqueClicks": 0,
    "replies": 0,
    "uniqueReplies": 0,
    "bounces": {"hard": 0, "soft": 0, "complaint": 0, "suppression": 0},
    "machineOpens": 0,
    "machineClicks": 0,
    "rates": {"open": None, "click": None, "reply": None, "bounce": None, "complaint": None},
    "firstEventAt": None,
    "lastEventAt": None,
}


def at(hours: float) -> str:
    """A moment some hours after the start, as an answer writes it."""
    return (
        (START + timedelta(hours=hours)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def a_campaign() -> str:
    """One that nobody else uses."""
    return f"campaign-{uuid4()}"


async def send(shared: Stack, *items: dict[str, Any]) -> list[str]:
    """Send events one by one, and return their ids when they are rows."""
    service = shared.services[0]
    ids = []
    for entry in items:
        answer = await service.post("/events", entry)
        assert answer.status == 202, answer.body
        ids.append(answer.json["eventId"])
    await shared.scribes[0].writer.drain()
    return ids


async def listed(service: Service, campaign: str, query: str = "") -> dict[str, Any]:
    """One page of a campaign's events."""
    answer = await service.get(f"/campaigns/{campaign}/events{query}")
    assert answer.status == 200, answer.body
    assert list(answer.json) == ["items", "next"]
    page: dict[str, Any] = answer.json
    return page


async def all_pages(service: Service, campaign: str, limit: int, query: str = "") -> list[str]:
    """The ids of all events, page by page."""
    ids: list[str] = []
    page = await listed(service, campaign, f"?limit={limit}{query}")
    while True:
        ids += [entry["eventId"] for entry in page["items"]]
        if page["next"] is None:
            return ids
        assert len(page["items"]) == limit
        page = await listed(service, campaign, f"?limit={limit}&after={page['next']}{query}")


# -- stats ---------------------------------------------------------------------------


async def test_a_slash_of_an_id_is_none_of_the_path(service: Service) -> None:
    for campaign, lead in (("a", "y/stats"), ("a", "y/events"), ("a/leads/y", "w"), ("b/", "/")):
        assert (await service.post("/events", item(campaignId=campaign, leadId=lead))).status == 202
        path = f"/campaigns/{quote(campaign, safe='')}/leads/{quote(lead, safe='')}"
        answer = await service.get(path)
        assert (answer.json["campaignId"], answer.json["leadId"]) == (campaign, lead)
    stats = await service.get("/campaigns/a%2fleads%2Fy/stats")
    assert stats.json["campaignId"] == "a/leads/y"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/campaigns//stats", 404),
        ("GET", "/campaigns/a/leads/", 404),
        ("GET", "/campaigns/a%2F/nothing%2f", 404),
        ("DELETE", "/leads/", 404),
        ("DELETE", "/leads/gone/export", 405),
    ],
)
async def test_nothing_is_done_for_an_id_that_is_none(
    service: Service, method: str, path: str, status: int
) -> None:
    answer = await service.call(method, path)
    assert (answer.status, answer.json["success"]) == (status, False)


async def test_a_campaign_never_seen_has_zeros_and_no_times(service: Service) -> None:
    answer = await service.get("/campaigns/never%20seen%2Fanywhere%20%F0%9F%9A%80/stats")

    assert answer.status == 200
    as_of = answer.json["asOf"]
    assert answer.json == {"campaignId": "never seen/anywhere \N{ROCKET}"} | ZERO_STATS | {
        "asOf": as_of
    }
    assert abs(datetime.fromisoformat(as_of) - datetime.now(UTC)) < timedelta(seconds=10)


async def test_stats_count_leads_once_and_machines_apart(service: Service, shared: Stack) -> None:
    campaign = a_campaign()
    sent = [
        *[("EMAIL_SENT", lead, {}) for lead in "abcde"],
        *[("EMAIL_DELIVERED", lead, {}) for lead in "abcd"],
        *[("EMAIL_OPEN", lead, {}) for lead in "aabb"],
        *[("LINK_CLICK", lead, {}) for lead in "aaa"],
        *[("EMAIL_REPLY", lead, {}) for lead in "bb"],
        ("EMAIL_BOUNCE", "e", {"bounceType": "hard"}),
        ("EMAIL_BOUNCE", "e", {"bounceType": "soft"}),
        ("EMAIL_BOUNCE", "d", {"bounceType": "complaint"}),
        ("EMAIL_BOUNCE", "d", {"bounceType": "suppression"}),
    ]
    await send(
        shared,
        *[
            item(kind, campaignId=campaign, leadId=lead, timestamp=at(hour), **more)
            for hour, (kind, lead, more) in enumerate(sent)
        ],
    )
    tokens = service.ports.tokens
    machine = tokens.mint_open(campaign, "z", "mail", minted_at_s=0)
    await service.call("HEAD", f"/pixel/{machine}")
    await shared.scribes[0].writer.drain()

    answer = await service.get(f"/campaigns/{campaign}/stats")

    assert answer.json | {"asOf": 0, "lastEventAt": 0} == {
        "campaignId": campaign,
        "sent": 5,
        "delivered": 4,
        "opens": 4,
        "uniqueOpens": 2,
        "clicks": 3,
        "uniqueClicks": 1,
        "replies": 2,
        "uniqueReplies": 1,
        "bounces": {"hard": 1, "soft": 1, "complaint": 1, "suppression": 1},
        "machineOpens": 1,
        "machineClicks": 0,
        "rates": {"open": 0.5, "click": 0.25, "reply": 0.25, "bounce": 0.4, "complaint": 0.25},
        "firstEventAt": at(0),
        "lastEventAt": 0,
        "asOf": 0,
    }


# -- events --------------------------------------------------------------------------


async def test_an_event_is_shown_as_it_was_accepted(service: Service, shared: Stack) -> None:
    campaign = a_campaign()
    sent = item(
        "EMAIL_REPLY",
        campaignId=campaign,
        timestamp="2026-11-20T20:00:00.5+01:00",
        accountId="account",
        eventId="mine",
        ipAddress="2001:db8:0:0:0:0:0:7",
        userAgent="Mail/1.0",
        deviceInfo={"type": "mobile"},
        locationInfo={"city": "Paris"},
        customData={"n": [1, 2.5, None, True], "big": 2**70, "\N{ROCKET}": "<script>"},
        subject="Re: hello",
        autoReply=False,
    )
    await send(shared, sent)

    (entry,) = (await listed(service, campaign))["items"]

    assert list(entry) == ["eventId", "eventType", "eventData", "receivedAt"]
    assert (entry["eventId"], entry["eventType"]) == ("mine", "EMAIL_REPLY")
    assert entry["eventData"] == sent["eventData"] | {
        "timestamp": "2026-11-20T19:00:00.500Z",
        "ipAddress": "2001:db8::7",
    }
    lines = await service.get(f"/campaigns/{campaign}/events", headers=LINES)
    assert json.loads(lines.body) == entry
    received = datetime.fromisoformat(entry["receivedAt"])
    assert abs(received - datetime.now(UTC)) < timedelta(seconds=20)


async def test_events_are_listed_newest_first_and_each_once(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()
    batch = [item(campaignId=campaign, eventId=f"batch {n}") for n in range(20)]
    await service.post("/events/batch", batch)
    ids = await send(shared, *[item(campaignId=campaign) for _ in range(5)])

    items = (await listed(service, campaign))["items"]

    assert [entry["eventId"] for entry in items[:5]] == ids[::-1]
    assert len({entry["eventId"] for entry in items}) == len(items) == 25
    assert all(a["receivedAt"] >= b["receivedAt"] for a, b in pairwise(items))
    for limit in (1, 7, 25, 1000):
        assert await all_pages(service, campaign, limit) == [entry["eventId"] for entry in items]


async def test_a_cursor_stays_where_it_is_while_new_events_arrive(
    service: Service, shared: Stack
) -> None:
    """A page by number would show an event twice for each that came in meanwhile."""
    campaign = a_campaign()
    ids = await send(shared, *[item(campaignId=campaign) for _ in range(6)])
    first = await listed(service, campaign, "?limit=3")
    await send(shared, *[item(campaignId=campaign) for _ in range(4)])

    second = await listed(service, campaign, f"?limit=3&after={first['next']}")

    seen = [entry["eventId"] for page in (first, second) for entry in page["items"]]
    assert seen == ids[::-1]
    assert second["next"] is None


async def test_events_are_chosen_by_type_and_by_a_half_open_span_of_their_own_times(
    service: Service, shared: Stack
) -> None:
    campaign = a_campaign()
    ids = await send(
        shared,
        *[item(campaignId=campaign, timestamp=at(hour)) for hour in range(5)],
        item("EMAIL_REPLY", campaignId=campaign, timestamp=at(2)),
    )

    async def chosen(query: str) -> set[str]:
        return set(await all_pages(service, campaign, 2, query))

    assert await chosen("&type=EMAIL_REPLY") == {ids[5]}
    assert await chosen("&type=LINK_CLICK") == set()
    assert await chosen(f"&from={at(1)}&to={at(3)}") == {ids[1], ids[2], ids[5]}
    assert await chosen(f"&type=EMAIL_OPEN&from={at(3)}") == {ids[3], ids[4]}
    assert await chosen("&from=2026-11-20T04:00:00%2B01:00") == {ids[3], ids[4]}
    # Nobody escapes the plus sign at the first attempt.
    assert await chosen("&from=2026-11-20T04:00:00+01:00") == {ids[3], ids[4]}


async def test_a_campaign_never_seen_has_no_events(service: Service) -> None:
    assert await listed(service, "never-seen") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ("type=EMAIL_SNEEZED", "type", "EMAIL_OPEN"),
        ("type=", "type", "EMAIL_OPEN"),
        ("from=yesterday", "from", "ISO 8601"),
        ("from=", "from", "ISO 8601"),
        ("to=2026-11-20", "to", "offset"),
        ("to=2026-11-20T00:00:00", "to", "offset"),
        ("from=0001-01-01T00:00:00%2B23:59", "from", "ISO 8601"),
        ("to=9999-12-31T23:59:59-23:59", "to", "ISO 8601"),
        ("limit=0", "limit", "1000"),
        ("limit=1001", "limit", "1000"),
        ("limit=-1", "limit", "1000"),
        ("limit=ten", "limit", "1000"),
        ("limit=%D9%A3", "limit", "1000"),
        ("limit=", "limit", "1000"),
        ("limit=0000000019999", "limit", "1000"),
        ("limit=000000001" + "9" * 5000, "limit", "1000"),
        ("after=nonsense", "after", "cursor"),
        ("after=", "after", "cursor"),
        ("after=%00", "after", "cursor"),
        ("after=" + "_" * 32, "after", "cursor"),
        ("after=%C3%A9%F0%9F%9A%80", "after", "cursor"),
    ],
)
@pytest.mark.parametrize("headers", [{}, LINES], ids=["a page", "lines"])
async def test_a_parameter_that_is_wrong_is_named(
    service: Service, query: str, field: str, reason: str, headers: dict[str, str]
) -> None:
    answer = await service.get(f"/campaigns/c/events?{query}", headers=headers)

    assert answer.status == 422
    assert answer.json["success"] is False
    (detail,) = answer.json["details"]
    assert detail["field"] == field
    assert reason in detail["message"]


@pytest.mark.parametrize(
    ("campaign", "status"),
    [
        ("%00", 422),
        ("a%00b", 422),
        ("%ff%fe", 200),
        ("%ED%A0%80", 200),
        ("%0A", 200),
        ("x" * 5000, 200),
    ],
)
@pytest.mark.parametrize("what", ["stats", "events"])
async def test_a_campaign_that_cannot_be_is_no_server_error(
    service: Service, what: str, campaign: str, status: int
) -> None:
    answer = await service.get(f"/campaigns/{campaign}/{what}")

    assert answer.status == status
    if status == 422:
        assert answer.json["details"][0]["field"] == "campaignId"


async def test_all_events_are_streamed_as_lines(service: Service, shared: Stack) -> None:
    """More than are read from Postgres at a time, and in the order of the pages."""
    campaign = a_campaign()
    for _ in range(3):
        answer = await service.post(
            "/events/batch", [item(campaignId=campaign) for _ in range(400)]
        )
        assert answer.status == 200
    await shared.scribes[0].writer.drain()

    answer = await service.get(f"/campaigns/{campaign}/events", headers=LINES)

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert answer.body.endswith(b"\n")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert len(lines) == 1200
    assert [line["eventId"] for line in lines] == await all_pages(service, campaign, 1000)
    assert lines[0] == (await listed(service, campaign, "?limit=1"))["items"][0]


async def test_lines_are_chosen_as_pages_are(service: Service, shared: Stack) -> None:
    campaign = a_campaign()
    (_, wanted) = await send(
        shared, item(campaignId=campaign), item("EMAIL_REPLY", campaignId=campaign)
    )
    answer = await service.get(f"/campaigns/{campaign}/events?type=EMAIL_REPLY", headers=LINES)
    empty = await service.get(f"/campaigns/{campaign}/events?type=LINK_CLICK", headers=LINES)

    assert [json.loads(line)["eventId"] for line in answer.body.splitlines()] == [wanted]
    assert (empty.status, empty.body) == (200, b"")


@pytest.mark.parametrize("what", ["stats", "events"])
async def test_another_method_is_told_which_to_use(service: Service, what: str) -> None:
    answer = await service.post(f"/campaigns/c/{what}", {})

    assert answer.status == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert answer.json["success"] is False


async def test_a_campaigns_name_is_data_also_in_a_query(service: Service, shared: Stack) -> None:
    campaign = f"a/b?c#d'; DROP TABLE events; -- {uuid4()} %s $1 \\"
    await send(shared, item(campaignId=campaign))

    answer = await service.get(f"/campaigns/{quote(campaign, safe='')}/stats")

    assert (answer.json["campaignId"], answer.json["opens"]) == (campaign, 1)


# -- a Postgres that fails -----------------------------------------------------------


def says_that_postgres_is_away(answer: Answer) -> bool:
    """A 503 that says why, and when to come again."""
    assert answer.status == 503, answer.body
    return "Postgres" in answer.json["error"] and int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("what", ["stats", "events"])
@pytest.mark.parametrize("headers", [{}, LINES], ids=["a page", "lines"])
async def test_a_question_while_postgres_is_away_is_a_503_and_later_an_answer(
    stack: Stack, what: str, headers: dict[str, str]
) -> None:
    proxy, url = await stack.postgres_proxy()
    service = await stack.service(database_url=url)
    path = f"/campaigns/c/{what}"
    assert (await service.get(path, headers=headers)).status == 200

    proxy.refuse()
    proxy.cut()
    assert says_that_postgres_is_away(await service.get(path, headers=headers))
    await proxy.accept()

    async def answers() -> bool:
        return (await service.get(path, headers=headers)).status == 200

    await eventually(answers)


async def test_a_session_that_is_ended_under_a_question_is_a_503(stack: Stack) -> None:
    """An operator restarts Postgres: the reader may come again, it is nobody's bug."""
    service = await stack.service()
    await service.get("/campaigns/c/stats")
    await stack.sql("BEGIN")
    await stack.sql("LOCK TABLE rollup_totals IN ACCESS EXCLUSIVE MODE")
    asking = asyncio.create_task(service.get("/campaigns/c/stats"))
    await eventually(lambda: stack.sql(_WAITING))

    await stack.sql(f"SELECT pg_terminate_backend(pid) FROM ({_WAITING}) waiting")

    assert says_that_postgres_is_away(await asking)
    await stack.sql("ROLLBACK")
    assert (await service.get("/campaigns/c/stats")).status == 200


_WAITING = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND application_name = 'ray-tracking api'"
)
