"""The figures of campaigns equal a recount of the rows, whatever becomes of who counts."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ray_tracking.errors import Fenced
from ray_tracking.events import LANES, EventType
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.rolling import RollupWriter, Step
from ray_tracking.stores.rollups import Rollups
from tests.support.recount import recount, rolled
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

START = datetime(2026, 11, 20, tzinfo=UTC)


def an_event(stack: Stack, rng: random.Random, **more: Any) -> Submission:
    """One of any type, near others of its kind."""
    kind = rng.choice(list(EventType))
    fields: dict[str, Any] = {
        "timestamp": (START + timedelta(minutes=rng.randrange(2000))).isoformat(),
        "eventId": f"id-{rng.getrandbits(64)}",
    }
    if kind is not EventType.ACCOUNT_HEALTH_UPDATE or rng.random() < 0.5:
        fields["campaignId"] = f"c{rng.randrange(3)}"
    if kind not in (EventType.ACCOUNT_HEALTH_UPDATE, EventType.CAMPAIGN_STATUS_CHANGE):
        fields["leadId"] = f"lead-{rng.randrange(8)}"
    if rng.random() < 0.5:
        fields["deviceInfo"] = {"type": rng.choice(["mobile", "desktop"])}
        fields["locationInfo"] = {"country": rng.choice(["DE", "FR"])}
    if kind is EventType.LINK_CLICK:
        fields["linkUrl"] = f"https://example.com/{rng.randrange(2)}" + "x" * rng.choice([0, 5000])
        fields["linkId"] = rng.choice([None, "top", "foot"])
    elif kind is EventType.EMAIL_BOUNCE:
        fields["bounceType"] = rng.choice(["hard", "soft", "complaint", "suppression"])
    return stack.event(kind, **fields | more)


async def assert_counted(stack: Stack) -> None:
    """Every figure is what a recount of the rows gives, and the service says so."""
    assert await rolled(stack.sql) == recount(await stack.rows())
    queries = await Queries.open(stack.database_url, stack.schema)
    checks = [check async for check in queries.verifier.check_many()]
    await queries.close()
    assert [figure for check in checks for figure in check.differences] == []
    campaigns = await stack.sql("SELECT DISTINCT campaign_id AS c FROM events")
    assert {check.campaign_id for check in checks} == {row["c"] for row in campaigns} - {None}


async def test_every_figure_equals_a_recount(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer(max_events=50)
    rng = random.Random(1)
    for _ in range(20):
        await owner.submit(*[an_event(stack, rng) for _ in range(40)])
    await scribe.writer.drain()

    assert await stack.count() == 800
    await assert_counted(stack)


async def test_figures_follow_the_rows_within_a_second(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.writer()
    await owner.submit(stack.event(campaignId="c1"))
    await eventually(lambda: stack.has_rows(1))

    async def counted() -> bool:
        return bool(await stack.sql("SELECT 1 FROM rollup_totals WHERE opens = 1"))

    await eventually(counted)


async def test_a_long_backlog_is_counted_in_bounded_steps(stack: Stack) -> None:
    owner = await stack.shard()
    rng = random.Random(2)
    for _ in range(30):
        await owner.submit(*[an_event(stack, rng) for _ in range(20)])
    await rows_without_figures(stack, 600)
    roller = RollupWriter(stack.database_url, stack.schema, "roller", range(stack.partitions))
    await roller.take_over()
    steps: list[Step] = []
    while not steps or steps[-1].behind:
        steps.append(await roller.step(100))
    await roller.close()

    assert len(steps) >= 5
    # An entry is never split.
    assert max(step.rows for step in steps) <= 100 + 20 * stack.partitions
    await assert_counted(stack)


async def test_a_row_that_was_received_long_ago_is_found(stack: Stack) -> None:
    """The spool of a node that was off for days is drained at last."""
    owner = await stack.shard()
    scribe = await stack.writer()
    await owner.submit(stack.event(campaignId="c1"))
    await scribe.writer.drain()
    long_ago = datetime.now(UTC) - timedelta(days=40)
    late = stack.event(campaignId="c1", received_ms=int(long_ago.timestamp() * 1000))
    await owner.submit(late)
    await scribe.writer.drain()

    assert await stack.count() == 2
    await assert_counted(stack)


async def test_a_roller_that_has_a_successor_counts_nothing(stack: Stack) -> None:
    owner = await stack.shard()
    await owner.submit(stack.event(campaignId="c1"))
    await rows_without_figures(stack, 1)
    old = RollupWriter(stack.database_url, stack.schema, "roller", range(stack.partitions))
    new = RollupWriter(stack.database_url, stack.schema, "roller", range(stack.partitions))
    await old.take_over()
    await new.take_over()

    with pytest.raises(Fenced):
        await old.step(100)
    assert await rolled(stack.sql) == {}
    assert (await new.step(100)).rows == 1
    assert (await new.step(100)).rows == 0
    await old.close()
    await new.close()


async def test_totals_say_up_to_where_in_the_log_they_count(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer(max_events=20)
    rollups = await Rollups.open(stack.database_url, stack.schema, "tests")
    sending = asyncio.create_task(_send(stack, owner, 60))
    while not sending.done():
        positions, totals = await rollups.totals()
        expected = 0
        for row in await stack.rows():
            lane = [str(lane) for lane in LANES].index(row["log_lane"])
            where = (row["log_partition"], lane)
            expected += EntryId(row["log_epoch"], row["log_seq"]) <= positions[where]
        assert sum(its["opens"] for its in totals.values()) == expected
    await sending
    await scribe.writer.drain()
    _, totals = await rollups.totals(["c1", "never seen"])
    assert totals["c1"]["opens"] == 600
    assert set(totals) == {"c1"}
    assert await rollups.uniques(["c1"]) == {
        "c1": {"unique_opens": 600, "unique_clicks": 0, "unique_replies": 0}
    }
    await rollups.close()


@pytest.mark.parametrize(
    ("harm", "figures"),
    [
        ("UPDATE rollup_totals SET opens = opens + 1", {"opens"}),
        ("UPDATE rollup_links SET unique_clicks = 0", {"uniqueClicks https://example.com/offer"}),
        ("DELETE FROM rollup_buckets WHERE bucket = 'day'", {"day 2026-11-20T00:00:00.000Z"}),
        ("UPDATE rollup_groups SET name = 'tv' WHERE kind = 'device'", {"device tv", "device "}),
        ("UPDATE events SET agent = 'machine' WHERE event_type = 'EMAIL_REPLY'", {"replies"}),
        (
            "DELETE FROM events WHERE event_type = 'EMAIL_SENT'",
            {"sent", "events", "firstEventAt"},
        ),
    ],
)
async def test_verify_finds_what_is_wrong(stack: Stack, harm: str, figures: set[str]) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    kinds = ["EMAIL_SENT", "EMAIL_OPEN", "LINK_CLICK", "EMAIL_REPLY"]
    await owner.submit(
        *[
            stack.event(kind, timestamp=f"2026-11-20T0{hour}:00:00Z")
            for hour, kind in enumerate(kinds)
        ]
    )
    await scribe.writer.drain()
    queries = await Queries.open(stack.database_url, stack.schema)
    before = await queries.verifier.check("c1")

    await stack.sql(harm)

    after = await queries.verifier.check("c1")
    await queries.close()
    assert before.differences == []
    found = {figure.name for figure in after.differences}
    for name in figures:
        assert any(one.startswith(name) for one in found), found
    assert after.answer()["equal"] is False


async def _send(stack: Stack, owner: Any, times: int) -> None:
    for _ in range(times):
        await owner.submit(*[stack.event(campaignId="c1") for _ in range(10)])


async def rows_without_figures(stack: Stack, number: int) -> None:
    """Let the writer write, and take back what its roller has counted."""
    scribe = await stack.writer()
    await eventually(lambda: stack.has_rows(number))
    await scribe.kill()
    for table in ("totals", "buckets", "groups", "links", "leads", "link_leads"):
        await stack.sql(f"DELETE FROM rollup_{table}")
    await stack.sql("UPDATE rollup_positions SET epoch = 0, seq = 0, rows_total = 0")
    await stack.sql("UPDATE log_positions SET oldest_ms = 0")
