"""Parked hits become rows as their campaign's budget allows, and hold up nobody else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ray_tracking.pipeline.gather import Verdict
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import Submission
from tests.support.parts import Owner, Scribe
from tests.support.stack import PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

#: In a window of two seconds, so that a test sees several.
RATE = RatePolicy(max_events=20, window_ms=2000)
#: In a window that no test outlasts.
LONG = RatePolicy(max_events=20, window_ms=600_000)


def hits(stack: Stack, number: int, **fields: Any) -> list[Submission]:
    """Opens of a pixel, which are never refused."""
    return [stack.event(token=f"{time.monotonic_ns()} {n}", **fields) for n in range(number)]


async def submit(owner: Owner, *submissions: Submission) -> None:
    outcomes = await owner.submit(*submissions)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}


async def lanes(stack: Stack) -> dict[str, int]:
    rows = await stack.sql("SELECT log_lane, count(*) AS n FROM events GROUP BY log_lane")
    return {row["log_lane"]: row["n"] for row in rows}


async def parked(scribe: Scribe) -> int:
    waiting: int = (await scribe.writer.status())["parked"]
    return waiting


async def test_what_is_parked_waits_for_the_budget_of_its_campaign(stack: Stack) -> None:
    owner = await stack.shard(rate=RATE, max_entry_events=5)
    scribe = await stack.writer(rate=RATE)
    began_s = time.monotonic()
    await submit(owner, *hits(stack, 60))
    assert len(await stack.batches(stack.event().partition, PARKED)) == 8
    seen: list[tuple[float, int]] = []
    while (rows := await stack.count()) < 60:
        seen.append((time.monotonic() - began_s, rows))
        await asyncio.sleep(0.05)
        assert time.monotonic() - began_s < 30

    assert await lanes(stack) == {"normal": 20, "parked": 40}
    assert time.monotonic() - began_s >= 2 * RATE.window_ms / 1000
    assert {20, 40} <= {rows for _, rows in seen}, "one window after the other"
    for at_s, rows in seen:
        windows = int(at_s / (RATE.window_ms / 1000)) + 1
        assert rows <= windows * RATE.max_events
    await eventually(lambda: _has_nothing_parked(scribe))
    parked_rows = [row for row in await stack.rows() if row["log_lane"] == "parked"]
    order = [(row["log_epoch"], row["log_seq"], row["log_index"]) for row in parked_rows]
    assert order == sorted(order)


async def _has_nothing_parked(scribe: Scribe) -> bool:
    return await parked(scribe) == 0


async def test_other_lanes_and_other_campaigns_go_on_meanwhile(stack: Stack) -> None:
    """Also of the same partition, and while more is parked than a writer can hold."""
    owner = await stack.shard(rate=LONG, max_entry_events=5)
    scribe = await stack.writer(rate=LONG, max_queue_bytes=64 * 1024)
    busy, quiet = stack.campaign_in(1), stack.campaign_in(1, "quiet")
    await submit(owner, *hits(stack, 800, campaignId=busy))
    await eventually(lambda: _has_lanes(stack, {"normal": 20}))
    await eventually(lambda: parked(scribe))

    await submit(
        owner,
        *[stack.event(campaignId=quiet) for _ in range(20)],
        stack.event("EMAIL_BOUNCE", campaignId=quiet + "-b"),
        *[stack.event(campaignId=stack.campaign_in(2)) for _ in range(20)],
    )

    await eventually(lambda: _has_lanes(stack, {"normal": 60, "high": 1}))
    status = await scribe.writer.status()
    assert 0 < status["parked"] < 780
    assert status["queued_events"] == 0
    assert status["trouble"] is None
    assert status["stored"]["parked"] == 0


async def _has_lanes(stack: Stack, wanted: dict[str, int]) -> bool:
    return await lanes(stack) == wanted


async def test_a_parked_campaign_does_not_wait_for_one_in_another_partition(stack: Stack) -> None:
    """However much that one has."""
    owner = await stack.shard(rate=LONG, max_entry_events=5)
    busy, modest = stack.campaign_in(1), stack.campaign_in(2)
    await submit(owner, *hits(stack, 800, campaignId=busy))
    await submit(owner, *hits(stack, 25, campaignId=modest))
    scribe = await stack.writer(rate=RatePolicy(25, LONG.window_ms), max_queue_bytes=64 * 1024)

    await eventually(lambda: _has_lanes(stack, {"normal": 40, "parked": 10}))

    assert await parked(scribe) > 0


async def test_a_drain_does_not_wait_for_what_has_no_budget(stack: Stack) -> None:
    """It stays in the log for the next start, whose book of budgets is empty."""
    owner = await stack.shard(rate=LONG)
    scribe = await stack.writer(rate=LONG, max_age_ms=60_000, max_queue_bytes=16 * 1024)
    await submit(owner, *hits(stack, 50), stack.event("EMAIL_BOUNCE", campaignId="other"))

    await asyncio.wait_for(scribe.writer.drain(), 10)
    assert await lanes(stack) == {"normal": 20, "high": 1}
    await scribe.kill()

    await stack.writer(rate=LONG)
    await eventually(lambda: _has_lanes(stack, {"normal": 20, "high": 1, "parked": 30}))


async def test_a_campaign_below_its_rate_has_its_parked_hits_at_once(stack: Stack) -> None:
    """The shard was stricter than the writer is: its budget is full."""
    owner = await stack.shard(rate=RatePolicy(max_events=1, window_ms=600_000))
    await stack.writer(rate=LONG)

    await submit(owner, *hits(stack, 10))

    await eventually(lambda: _has_lanes(stack, {"normal": 1, "parked": 9}))
