"""A lead that is erased is nowhere any more, and does not come back by itself."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest

from ray_tracking.http.openapi import document
from ray_tracking.stores.queries import Queries
from tests.integration.test_replays import ask_for, replay
from tests.integration.test_retention import days_ago, differences, drop
from tests.integration.test_rollups import an_event, assert_counted
from tests.support.parts import Owner
from tests.support.recount import rolled
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

COMPONENTS = document("http://127.0.0.1:8000")["components"]
LEAD = "lead-3"


def described(answer: Any, schema: str) -> Any:
    assert answer.status == 200, answer.body
    reference = {"$ref": f"#/components/schemas/{schema}", "components": COMPONENTS}
    jsonschema.Draft202012Validator(reference).validate(answer.json)
    return answer.json


async def a_past(stack: Stack) -> Owner:
    owner = await stack.shard()
    scribe = await stack.writer()
    rng = random.Random(6)
    for _ in range(10):
        await owner.submit(*[an_event(stack, rng) for _ in range(40)])
    await scribe.writer.drain()
    return owner


async def erase(stack: Stack, lead: str = LEAD) -> Any:
    queries = await Queries.open(stack.database_url, stack.schema)
    receipt = await queries.leads.erase(lead)
    await queries.close()
    return receipt


async def traces(stack: Stack, lead: str = LEAD) -> int:
    """How many rows of any table name it."""
    found = 0
    for table in ("events", "rollup_leads", "rollup_link_leads"):
        (row,) = await stack.sql(f"SELECT count(*) AS n FROM {table} WHERE lead_id = $1", lead)
        found += row["n"]
    return found


async def test_rows_figures_and_uniques_go(stack: Stack) -> None:
    await a_past(stack)
    (before,) = await stack.sql("SELECT count(*) AS n FROM events WHERE lead_id = $1", LEAD)
    receipt = await erase(stack)

    assert receipt.events == before["n"] > 0
    assert receipt.campaigns == ["c0", "c1", "c2"]
    assert await traces(stack) == 0
    await assert_counted(stack)
    assert (await erase(stack)).events == 0
    await assert_counted(stack)


async def test_the_first_and_the_last_event_may_be_its_own(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    for hour, lead in enumerate(["gone", "stays", "gone"]):
        at = f"2026-11-20T0{hour}:00:00Z"
        await owner.submit(stack.event(campaignId="c1", leadId=lead, timestamp=at))
    await scribe.writer.drain()
    await erase(stack, "gone")

    (row,) = await stack.sql("SELECT * FROM campaign_stats")
    assert row["first_event_at"] == row["last_event_at"] == datetime(2026, 11, 20, 1, tzinfo=UTC)
    assert await differences(stack) == []


async def test_what_is_on_its_way_is_discarded(stack: Stack) -> None:
    owner = await a_past(stack)
    await stack.scribes[0].kill()
    on_its_way = [stack.event(campaignId="c1", leadId=LEAD) for _ in range(3)]
    await owner.submit(*on_its_way, stack.event(campaignId="c1", leadId="another"))
    rows = await stack.count()
    receipt = await erase(stack)
    scribe = await stack.writer()
    await scribe.writer.drain()

    assert await traces(stack) == 0
    assert await stack.count() == rows - receipt.events + 1
    await assert_counted(stack)
    books = (await scribe.writer.status())["books"]
    assert books["discarded"] == 3


async def test_erasing_while_events_of_it_are_stored_leaves_none(stack: Stack) -> None:
    owner = await a_past(stack)

    async def send() -> None:
        for _ in range(40):
            await owner.submit(*[stack.event(campaignId="c1", leadId=LEAD) for _ in range(5)])

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.05)
    await erase(stack)
    await sending
    await stack.scribes[0].writer.drain()

    # What came after it was said, but within the time in which all hear of it, is discarded too.
    assert await traces(stack) == 0
    await assert_counted(stack)


async def test_who_comes_again_much_later_is_a_new_lead(stack: Stack) -> None:
    owner = await a_past(stack)
    await erase(stack)
    later = int((time.time() + 60) * 1000)
    await owner.submit(stack.event(campaignId="c1", leadId=LEAD, received_ms=later))
    await stack.scribes[0].writer.drain()

    assert await traces(stack) == 2
    await assert_counted(stack)


async def test_sealed_days_forget_who_was_unique(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    for lead in (LEAD, "another"):
        await owner.submit(
            stack.event(campaignId="c1", leadId=lead, received_ms=days_ago(100)),
            stack.event("LINK_CLICK", campaignId="c1", leadId=lead, received_ms=days_ago(100)),
        )
    await scribe.writer.drain()
    await drop(stack)
    await erase(stack)

    figures = await rolled(stack.sql)
    assert (figures["c1 total opens"], figures["c1 total unique_opens"]) == (2, 1)
    assert await traces(stack) == 0
    assert await differences(stack) == []
    await ask_for(stack)
    await replay(stack)
    assert await rolled(stack.sql) == figures
    assert await differences(stack) == []


async def test_the_api_hands_out_and_erases(service: Service, shared: Stack) -> None:
    lead = "ada / ü"
    path = "/leads/ada%20%2F%20%C3%BC"
    tokens = service.ports.tokens
    old = int(time.time()) - 60
    pixel = tokens.mint_open("spring", lead, "mail", minted_at_s=old)
    click = tokens.mint_click("spring", lead, "mail", "https://example.com/", minted_at_s=old)
    assert (await service.get(f"/pixel/{pixel}.gif")).status == 200
    await shared.scribes[0].writer.drain()
    exported = described(await service.get(f"{path}/export"), "LeadExport")
    erased = described(await service.call("DELETE", path), "LeadErased")
    nothing = described(await service.get(f"{path}/export"), "LeadExport")

    assert [event["eventType"] for event in exported["events"]] == ["EMAIL_OPEN"]
    assert exported["campaigns"] == [
        {"campaignId": "spring", "opened": True, "clicked": False, "replied": False}
    ]
    assert erased["removed"] == {"events": 1, "deadLetters": 0, "campaigns": ["spring"]}
    assert nothing == {"leadId": lead, "events": [], "campaigns": [], "deadLetters": []}

    answer = await service.get(f"/pixel/{pixel}.gif")
    assert (answer.status, answer.headers.get("X-Tracking-Durable")) == (200, None)
    answer = await service.get(f"/click/{click}")
    assert (answer.status, answer.headers["Location"]) == (302, "https://example.com/")
    new = tokens.mint_open("spring", lead, "mail-2", minted_at_s=int(time.time()) + 60)
    assert (await service.get(f"/pixel/{new}.gif")).headers["X-Tracking-Durable"] == "1"
    await shared.scribes[0].writer.drain()
    left = described(await service.get(f"{path}/export"), "LeadExport")
    # It came within the time in which all hear of the tombstone.
    assert left["events"] == []


async def test_other_replicas_hear_of_it(stack: Stack) -> None:
    service = await stack.service()
    await stack.shard()
    await erase(stack)
    hearing = asyncio.create_task(service.ports.erased.run())
    now = datetime.now(UTC)

    await eventually(
        lambda: service.ports.erased.refuses(LEAD, int((now - timedelta(seconds=5)).timestamp()))
    )
    assert not service.ports.erased.refuses("another", 0)
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)


async def test_its_dead_letters_go(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.sql(
        "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (email_id <> 'poison') NOT VALID"
    )
    scribe = await stack.writer()
    await owner.submit(
        stack.event(campaignId="c1", leadId=LEAD, emailId="poison"),
        stack.event(campaignId="c1", leadId=f"{LEAD} another", emailId="poison"),
        stack.event(campaignId="c1", leadId=LEAD),
    )
    await scribe.writer.drain()
    receipt = await erase(stack)

    assert (receipt.events, receipt.dead_letters) == (1, 1)
    (left,) = await stack.sql("SELECT encoded_row FROM dead_letters")
    assert f"{LEAD} another".encode() in left["encoded_row"]
