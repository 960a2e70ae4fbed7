"""A replay counts a campaign anew, whatever happens to it and beside it."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from ray_tracking.errors import Fenced
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.pipeline.replay import ReplayRequest
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.recompute import Recompute, ReplayEnded
from tests.integration.test_rollups import an_event, assert_counted
from tests.support.parts import Owner
from tests.support.recount import rolled
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
CORRUPT = (
    "UPDATE rollup_totals SET opens = opens + 7, unique_clicks = 0 WHERE campaign_id = 'c1'",
    "DELETE FROM rollup_leads WHERE campaign_id = 'c1'",
    "UPDATE rollup_buckets SET events = 99 WHERE campaign_id = 'c1'",
    "DELETE FROM rollup_links WHERE campaign_id = 'c1'",
    "UPDATE events SET agent = 'machine' WHERE campaign_id = 'c1' AND lead_id = 'lead-3'",
)


async def a_past(stack: Stack, events: int = 400, seed: int = 1) -> Owner:
    """Events of some campaigns, counted."""
    owner = await stack.shard()
    scribe = await stack.writer()
    rng = random.Random(seed)
    for _ in range(events // 40):
        await owner.submit(*[an_event(stack, rng) for _ in range(40)])
    await scribe.writer.drain()
    return owner


async def ask_for(stack: Stack, replay_id: str = "r1", **more: Any) -> ReplayRequest:
    """Store a replay of the first campaign."""
    asked = {"campaign_id": "c1", "since": ALWAYS[0], "until": ALWAYS[1], "batch_size": 20}
    request = ReplayRequest(**asked | more)
    queries = await Queries.open(stack.database_url, stack.schema)
    store = queries.replays
    estimate = await store.estimate(request)
    assert await store.create(replay_id, request, estimate.events)
    assert not await store.create(replay_id, request, estimate.events)
    await queries.close()
    return request


async def replay(stack: Stack, replay_id: str = "r1") -> None:
    """Carry it out."""
    recompute = Recompute(stack.database_url, stack.schema, replay_id)
    await carry_out(recompute, "c1")
    await recompute.close()


async def one(stack: Stack, replay_id: str = "r1") -> Any:
    (row,) = await stack.sql("SELECT * FROM replays WHERE id = $1", replay_id)
    return row


async def generations(stack: Stack) -> set[int]:
    """Which there are of the campaign."""
    found: set[int] = set()
    for table in ("totals", "buckets", "groups", "links", "leads", "link_leads"):
        rows = await stack.sql(
            f"SELECT DISTINCT generation FROM rollup_{table} WHERE campaign_id = 'c1'"
        )
        found |= {row["generation"] for row in rows}
    return found


async def test_figures_that_are_wrong_are_right_afterwards(stack: Stack) -> None:
    await a_past(stack)
    for statement in CORRUPT:
        await stack.sql(statement)
    await ask_for(stack)
    await replay(stack)

    await assert_counted(stack)
    row = await one(stack)
    (count,) = await stack.sql("SELECT count(*) AS n FROM events WHERE campaign_id = 'c1'")
    assert row["status"] == "SUCCEEDED"
    assert row["processed"] == row["estimated_events"] == count["n"]
    assert row["started_at"] <= row["finished_at"]
    assert await generations(stack) == {row["generation"]}


async def test_events_that_come_meanwhile_are_counted_once(stack: Stack) -> None:
    owner = await a_past(stack)
    await ask_for(stack, batch_size=5)
    sending = asyncio.create_task(_send(stack, owner))
    await replay(stack)
    await ask_for(stack, "r2", batch_size=7)
    await asyncio.gather(replay(stack, "r2"), sending)
    await stack.scribes[0].writer.drain()

    assert await stack.count() == 400 + 50 * 10
    await assert_counted(stack)


async def test_several_at_once_end_well(stack: Stack) -> None:
    owner = await a_past(stack)
    for number in range(3):
        await ask_for(stack, f"r{number}", batch_size=10 + number)
    await asyncio.gather(_send(stack, owner), *[replay(stack, f"r{n}") for n in range(3)])
    await stack.scribes[0].writer.drain()

    await assert_counted(stack)
    assert len(await generations(stack)) <= 2
    await ask_for(stack, "last")
    await replay(stack, "last")
    assert len(await generations(stack)) == 1


async def test_one_that_is_killed_again_and_again_ends_as_one_in_one_go(stack: Stack) -> None:
    await a_past(stack)
    await ask_for(stack, batch_size=10)
    before = await rolled(stack.sql)
    rng = random.Random(3)
    for _ in range(10):
        recompute = Recompute(stack.database_url, stack.schema, "r1")
        running = asyncio.create_task(carry_out(recompute, "c1"))
        await asyncio.sleep(rng.random() * 0.03)
        # As SIGKILL: the connection is gone in the middle of whatever it did.
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await recompute.close()
    if (await one(stack))["status"] != "SUCCEEDED":
        await replay(stack)

    row = await one(stack)
    assert row["status"] == "SUCCEEDED"
    assert row["processed"] == row["estimated_events"]
    assert await rolled(stack.sql) == before
    await assert_counted(stack)


async def test_a_predecessor_that_still_runs_is_fenced(stack: Stack) -> None:
    await a_past(stack, events=80)
    await ask_for(stack, batch_size=5)
    old = Recompute(stack.database_url, stack.schema, "r1")
    await old.begin()
    await old.step()
    new = Recompute(stack.database_url, stack.schema, "r1")
    await new.begin()

    with pytest.raises(Fenced):
        await old.step()
    await carry_out(new, "c1")
    with pytest.raises(ReplayEnded):
        await old.swap()
    await old.close()
    await new.close()
    await assert_counted(stack)


async def test_one_that_is_stopped_changes_nothing(stack: Stack) -> None:
    await a_past(stack)
    await stack.sql(CORRUPT[0])
    before = await rolled(stack.sql)
    await ask_for(stack, batch_size=5)
    recompute = Recompute(stack.database_url, stack.schema, "r1")
    await recompute.begin()
    for _ in range(3):
        await recompute.step()
    queries = await Queries.open(stack.database_url, stack.schema)
    store = queries.replays

    assert await store.end("r1", "STOPPED")
    assert not await store.end("r1", "STOPPED")

    with pytest.raises(ReplayEnded):
        await recompute.step()
    await recompute.close()
    await queries.close()
    assert (await one(stack))["status"] == "STOPPED"
    assert await rolled(stack.sql) == before
    # The next one clears up behind it.
    await ask_for(stack, "r2")
    await replay(stack, "r2")
    assert len(await generations(stack)) == 1
    await assert_counted(stack)


async def test_the_span_and_the_types_say_what_it_is_about(stack: Stack) -> None:
    await a_past(stack)
    since, until = datetime(2026, 11, 20, 6, tzinfo=UTC), datetime(2026, 11, 20, 18, tzinfo=UTC)
    types = ("EMAIL_OPEN", "LINK_CLICK")
    await ask_for(stack, since=since, until=until, event_types=types)
    await replay(stack)
    (count,) = await stack.sql(
        "SELECT count(*) AS n FROM events WHERE campaign_id = 'c1' AND occurred_at >= $1 "
        "AND occurred_at < $2 AND event_type = ANY($3)",
        since, until, list(types),
    )  # fmt: skip
    row = await one(stack)

    assert row["processed"] == row["estimated_events"] == count["n"] > 0
    await assert_counted(stack)


async def test_without_reprocessing_no_figure_changes(stack: Stack) -> None:
    await a_past(stack, events=80)
    await stack.sql(CORRUPT[0])
    before = await rolled(stack.sql)
    await ask_for(stack, reprocess_analytics=False)
    await replay(stack)
    row = await one(stack)

    assert (row["status"], row["processed"]) == ("SUCCEEDED", row["estimated_events"])
    assert await rolled(stack.sql) == before
    assert await stack.sql("SELECT 1 FROM rollup_generations") == []


async def test_orphans_are_given_to_one_who_asks(stack: Stack) -> None:
    await a_past(stack, events=40)
    await ask_for(stack)
    queries = await Queries.open(stack.database_url, stack.schema)
    store = queries.replays
    assert await store.orphans(60) == []
    await stack.sql("UPDATE replays SET heard_at = now() - interval '2 minutes'")

    first, second = await asyncio.gather(store.orphans(60), store.orphans(60))
    assert [row["id"] for row in first + second] == ["r1"]
    await stack.sql("UPDATE replays SET heard_at = 'epoch', runner_epoch = 50")
    assert await store.orphans(60) == []
    await queries.close()
    assert (await one(stack))["status"] == "FAILED"


async def _send(stack: Stack, owner: Owner) -> None:
    rng = random.Random(9)
    for _ in range(50):
        await owner.submit(*[an_event(stack, rng) for _ in range(10)])
