"""Days of raw events go; the figures stay, also where it is killed in between."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ray_tracking import failpoints
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.recompute import Recompute
from ray_tracking.stores.retention import NotCounted, Retention
from tests.integration.test_replays import ask_for, one, replay
from tests.integration.test_rollups import an_event
from tests.support.parts import Owner
from tests.support.recount import rolled
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

POINTS = [point for point in failpoints.POINTS if point.startswith("retention.")]


def days_ago(days: int) -> int:
    moment = datetime.now(UTC) - timedelta(days=days)
    return int(moment.timestamp() * 1000)


async def a_past(stack: Stack, *, old: int = 60, new: int = 60) -> Owner:
    """Events of long ago, of the day after, and of today; counted."""
    owner = await stack.shard()
    scribe = await stack.writer()
    rng = random.Random(4)
    for days in (100, 99):
        events = [an_event(stack, rng, received_ms=days_ago(days)) for _ in range(old // 2)]
        await owner.submit(*events)
    await owner.submit(*[an_event(stack, rng) for _ in range(new)])
    await scribe.writer.drain()
    return owner


async def drop(stack: Stack, keep_days: int = 90) -> int:
    """How many days went."""
    retention = Retention(stack.database_url, stack.schema)
    gone = [day async for day in retention.run(keep_days)]
    await retention.close()
    return len(gone)


async def differences(stack: Stack) -> list[Any]:
    queries = await Queries.open(stack.database_url, stack.schema)
    found = [one async for check in queries.verifier.check_many() for one in check.differences]
    await queries.close()
    return found


async def test_figures_stay_when_their_rows_go(stack: Stack) -> None:
    await a_past(stack)
    before = await rolled(stack.sql)
    retention = Retention(stack.database_url, stack.schema)
    assert len(await retention.due(90)) == 2
    assert await stack.count() == 120

    assert await drop(stack) == 2
    assert await drop(stack) == 0

    assert await retention.due(90) == []
    assert await stack.count() == 60
    assert await rolled(stack.sql) == before
    assert await differences(stack) == []
    await retention.close()


async def test_a_replay_takes_sealed_sums_for_rows_that_are_gone(stack: Stack) -> None:
    await a_past(stack)
    before = await rolled(stack.sql)
    await drop(stack)
    await stack.sql("UPDATE rollup_totals SET opens = 0, unique_opens = 0 WHERE generation = 0")
    await stack.sql("DELETE FROM rollup_leads WHERE generation = 0")
    for campaign in ("c0", "c1", "c2"):
        await ask_for(stack, f"replay of {campaign}", campaign_id=campaign)
        await replay(stack, f"replay of {campaign}")

    assert await rolled(stack.sql) == before
    assert await differences(stack) == []


async def test_a_lead_that_comes_back_is_not_counted_twice(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    old = stack.event(campaignId="c1", leadId="ada", received_ms=days_ago(100))
    await owner.submit(old)
    await scribe.writer.drain()
    await drop(stack)
    await owner.submit(stack.event(campaignId="c1", leadId="ada"))
    await scribe.writer.drain()
    await ask_for(stack)
    await replay(stack)

    figures = await rolled(stack.sql)
    assert (figures["c1 total opens"], figures["c1 total unique_opens"]) == (2, 1)
    assert await differences(stack) == []


async def test_a_day_that_comes_back_is_dropped_again(stack: Stack) -> None:
    owner = await a_past(stack)
    await drop(stack)
    late = stack.event(campaignId="c1", received_ms=days_ago(100))
    await owner.submit(late)
    await stack.scribes[0].writer.drain()
    before = await rolled(stack.sql)
    assert await stack.count() == 61
    assert await differences(stack) == []

    assert await drop(stack) == 1
    assert await rolled(stack.sql) == before
    assert await differences(stack) == []


@pytest.mark.parametrize("point", POINTS)
async def test_one_that_was_killed_is_ended_by_the_next(
    stack: Stack, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_past(stack)
    before = await rolled(stack.sql)

    def die(path: Path, data: tuple[bytes, ...]) -> None:
        if path.name == point:
            raise asyncio.CancelledError

    monkeypatch.setattr(failpoints, "_reach", die)
    failpoints.arm(tmp_path)
    try:
        with pytest.raises(asyncio.CancelledError):
            await drop(stack)
        assert await differences(stack) == []
    finally:
        failpoints.arm(None)
    assert await drop(stack) >= 1

    assert await stack.count() == 60
    assert await rolled(stack.sql) == before
    assert await differences(stack) == []
    tables = await stack.sql("SELECT 1 FROM pg_class WHERE relname LIKE 'events_%_leaving' "
                             "AND relnamespace = to_regnamespace($1)", stack.schema)  # fmt: skip
    assert tables == []


async def test_writers_of_other_days_do_not_wait(stack: Stack) -> None:
    owner = await a_past(stack)
    rng = random.Random(5)

    async def write() -> None:
        for _ in range(30):
            await owner.submit(*[an_event(stack, rng) for _ in range(5)])
            await asyncio.sleep(0.01)

    await asyncio.gather(write(), drop(stack))
    await stack.scribes[0].writer.drain()
    assert await stack.count() == 60 + 150
    assert await differences(stack) == []


async def test_a_replay_that_goes_on_begins_anew(stack: Stack) -> None:
    await a_past(stack)
    before = await rolled(stack.sql)
    await ask_for(stack, batch_size=3)
    recompute = Recompute(stack.database_url, stack.schema, "r1")
    await recompute.begin()
    for _ in range(5):
        await recompute.step()
    await drop(stack)
    assert (await one(stack))["generation"] is None
    await carry_out(recompute, "c1")
    await recompute.close()

    assert (await one(stack))["status"] == "SUCCEEDED"
    assert await rolled(stack.sql) == before
    assert await differences(stack) == []


async def test_what_is_not_counted_is_not_dropped(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_past(stack)
    await stack.scribes[0].kill()
    await stack.sql("UPDATE rollup_positions SET seq = 0")
    monkeypatch.setattr("ray_tracking.stores.retention._COUNTED_WITHIN_S", 0.2)

    with pytest.raises(NotCounted):
        await drop(stack)
    assert await stack.count() == 120
