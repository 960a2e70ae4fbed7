"""Of the owners of a partition only the last appends, and it knows what all others did."""

from __future__ import annotations

import asyncio
import time

import pytest

from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.pipeline.append import EntryId, Kind
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_setup import LogIdentity
from tests.support.proxy import Fault
from tests.support.shards import (
    ACCEPTED,
    AWAY,
    DUPLICATE,
    LIMITED,
    UNAVAILABLE,
    Faulty,
    assert_logged_once,
    follow_all,
    held,
    verdicts,
)
from tests.support.stack import HIGH, NORMAL, PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def test_a_successor_knows_what_its_killed_predecessor_appended(stack: Stack) -> None:
    """The window is rebuilt from the log: memory alone would forget with the process."""
    owner = await stack.shard()
    sent = [
        stack.event(leadId="l", emailId="e"),
        stack.event("EMAIL_BOUNCE", eventId="mine"),
        stack.event(token="a pixel's token"),
    ]
    first = await owner.submit(*sent)
    await owner.kill()

    successor = await stack.shard()
    again = [
        stack.event(leadId="l", emailId="e"),
        stack.event("EMAIL_BOUNCE", eventId="mine"),
        stack.event(token="a pixel's token"),
    ]
    outcomes = await successor.submit(*again)

    assert verdicts(outcomes) == [DUPLICATE] * 3
    assert [o.position for o in outcomes] == [o.position for o in first]
    assert [o.first_id for o in outcomes] == [s.event_id for s in sent]
    assert await successor.submit(*sent) == first
    await assert_logged_once(stack, *sent)


async def test_a_campaign_that_is_over_its_rate_stays_so_after_a_restart(stack: Stack) -> None:
    rate = RatePolicy(max_events=3)
    owner = await stack.shard(rate=rate)
    assert verdicts(await owner.submit(*[stack.event() for _ in range(4)])) == [
        *[ACCEPTED] * 3,
        LIMITED,
    ]
    await owner.kill()

    successor = await stack.shard(rate=rate)
    (outcome,) = await successor.submit(stack.event())

    assert outcome.verdict is LIMITED
    assert 0 < outcome.retry_after_s <= 61


@pytest.mark.parametrize("ahead_ms", [0, 5_000], ids=["same epoch", "later epoch"])
async def test_of_two_contenders_one_wins_every_lane_and_the_other_ends(
    stack: Stack, ahead_ms: int
) -> None:
    now_ms = time.time_ns() // 1_000_000
    campaign = stack.campaign_in(0)
    first = await stack.shard(clock=lambda: now_ms)
    sent = [
        stack.event(campaignId=campaign),
        stack.event("EMAIL_BOUNCE", campaignId=campaign),
    ]
    await first.submit(*sent)
    contenders = [
        await stack.shard(name, partitions=[0], start=False, clock=lambda at=at: at)
        for name, at in (("a", now_ms + 10_000), ("b", now_ms + 10_000 + ahead_ms))
    ]

    started = await asyncio.gather(*[o.shard.start() for o in contenders], return_exceptions=True)
    late = [stack.event(campaignId=campaign) for _ in contenders]
    outcomes = [
        (await owner.submit(event))[0].verdict if error is None else None
        for owner, event, error in zip(contenders, late, started, strict=True)
    ]

    assert outcomes.count(ACCEPTED) == 1
    winner = outcomes.index(ACCEPTED)
    assert isinstance(started[1 - winner], Fenced) or outcomes[1 - winner] is UNAVAILABLE
    assert contenders[1 - winner].died is not None
    assert contenders[winner].died is None
    ends = {(await stack.entries(0, lane))[-1].id.epoch for lane in (HIGH, NORMAL, PARKED)}
    assert len(ends) == 1
    await assert_logged_once(stack, *sent, late[winner])
    assert (await stack.batches(0))[-1].header.total == 2


async def test_a_takeover_that_was_cut_off_keeps_the_running_totals(stack: Stack) -> None:
    """
    A marker that nobody followed up stands where the next owner looks for the totals:
    the books must not begin again at nought behind it.
    """
    owner = await stack.shard()
    sent = [stack.event(campaignId=stack.campaign_in(0)) for _ in range(5)]
    await owner.submit(*sent)
    await owner.kill()
    proxy, url = await stack.valkey_proxy()
    key = stack.stream(0, PARKED).encode()
    proxy.strike(b"XADD\r\n$%d\r\n%b" % (len(key), key), Fault.LOSE_REPLY)
    successor = await stack.shard(redis_url=url, start=False)
    with pytest.raises(LogUnavailable):
        await successor.shard.start()

    await successor.shard.start()
    last = stack.event(campaignId=stack.campaign_in(0))
    await successor.submit(last)

    assert (await stack.batches(0))[-1].header.total == 6
    assert (await successor.status())["totals"] == {"high": 0, "normal": 6, "parked": 0}
    await assert_logged_once(stack, *sent, last)


async def test_a_zombie_whose_append_was_delayed_cannot_append_after_a_takeover(
    faulty: Faulty,
) -> None:
    """The old owner is not told of its successor; the log itself refuses it."""
    event = faulty.event()
    before = await faulty.stack.logged_ids()
    delayed = await held(faulty.proxy, faulty.owner, event)

    successor = await faulty.stack.shard()
    faulty.proxy.release()

    assert verdicts(await delayed) == [UNAVAILABLE]
    assert faulty.owner.died is not None
    assert await faulty.stack.logged_ids() == before
    assert verdicts(await successor.submit(event)) == [ACCEPTED]
    assert sorted(await faulty.stack.logged_ids()) == sorted([*before, event.event_id])
    await follow_all(faulty.stack)


async def test_a_zombie_that_wakes_up_after_a_takeover_ends_at_its_first_event(
    stack: Stack,
) -> None:
    zombie = await stack.shard()
    first = stack.event()
    await zombie.submit(first)
    successor = await stack.shard()
    event = stack.event()

    assert verdicts(await zombie.submit(event)) == [UNAVAILABLE]
    assert zombie.died is not None
    assert verdicts(await successor.submit(event)) == [ACCEPTED]
    await assert_logged_once(stack, first, event)


async def test_what_a_zombie_appends_during_the_takeover_is_known_to_the_successor(
    stack: Stack,
) -> None:
    """
    Between the successor's reading of a lane and its marker there, the old owner can
    still append, and acknowledge. The chain names what really stands before the marker.
    """
    zombie = await stack.shard()
    first, during = (stack.event(campaignId=stack.campaign_in(0)) for _ in range(2))
    await zombie.submit(first)
    proxy, url = await stack.valkey_proxy()
    key = stack.stream(0, NORMAL).encode()
    proxy.strike(b"XADD\r\n$%d\r\n%b" % (len(key), key), Fault.HOLD_REQUEST)
    successor = await stack.shard(redis_url=url, start=False)
    starting = asyncio.create_task(successor.shard.start())
    await proxy.struck()

    acknowledged = await zombie.submit(during)
    proxy.release()
    await starting

    assert verdicts(acknowledged) == [ACCEPTED]
    assert await successor.submit(during) == acknowledged
    (chain,) = [e for e in (await stack.entries(0))[2:] if e.header.kind is Kind.CHAIN]
    position = acknowledged[0].position
    assert position is not None
    assert chain.header.previous == str(EntryId(*position[2:4]))
    assert chain.header.total == 2
    await assert_logged_once(stack, first, during)


async def test_the_totals_of_a_log_that_was_lost_go_on_from_what_has_become_rows(
    stack: Stack,
) -> None:
    """
    The books are closed against what was ever committed: totals that began again at nought
    would say that events are missing which have long been rows.
    """
    owner = await stack.shard()
    await stack.writer(partitions=[0])
    campaign = stack.campaign_in(0)
    sent = [stack.event(campaignId=campaign) for _ in range(5)]
    sent += [stack.event("EMAIL_BOUNCE", campaignId=campaign) for _ in range(2)]
    await owner.submit(*sent)
    await eventually(lambda: stack.has_rows(7))
    await owner.kill()
    await stack.redis.delete(*[stack.stream(0, lane) for lane in (HIGH, NORMAL, PARKED)])

    successor = await stack.shard()
    assert (await successor.status())["totals"] == {"high": 2, "normal": 5, "parked": 0}
    last = stack.event(campaignId=campaign)
    await successor.submit(last)

    assert [entry.header.total for entry in await stack.entries(0)] == [0, 5, 6]


async def test_a_log_that_is_ahead_of_the_rows_counts_for_itself(stack: Stack) -> None:
    owner = await stack.shard()
    await owner.submit(*[stack.event(campaignId=stack.campaign_in(0)) for _ in range(5)])
    await owner.kill()

    successor = await stack.shard()
    assert (await successor.status())["totals"] == {"high": 0, "normal": 5, "parked": 0}


async def test_hundreds_of_partitions_can_be_taken_over_at_once(stack: Stack) -> None:
    log = EventLog(stack.redis_url, stack.prefix)
    try:
        takeovers = await asyncio.gather(
            *[
                log.take_over(
                    number, stored_epoch=0, stored_totals=[0, 0, 0], now_s=time.time(), since_ms=0
                )
                for number in range(100, 400)
            ]
        )
    finally:
        await log.close()
        await stack.empty_log()
    assert len(takeovers) == 300


async def test_an_emptied_log_is_put_in_order_and_its_loss_is_found(stack: Stack) -> None:
    """``FLUSHALL``: nothing is acknowledged into a void, and new events are safe again."""
    owner = await stack.shard()
    scribe = await stack.writer()
    event = stack.event()
    await owner.submit(event)
    await eventually(lambda: _has_rows(stack, 1))
    await stack.empty_log()

    assert verdicts(await owner.submit(stack.event())) == [UNAVAILABLE]
    assert owner.died
    successor = await stack.shard(assign=False, start=False)
    assert verdicts(await successor.submit(stack.event())) == [AWAY]
    identity, shards = LogIdentity(stack.partitions, b"x" * 16), {"shard-0": list(range(4))}
    log = EventLog(stack.redis_url, stack.prefix)
    try:
        assert await log.put_back(identity, shards)
        assert not await log.put_back(identity, shards)
    finally:
        await log.close()

    late = stack.event(campaignId=stack.campaign_in(event.partition))
    assert verdicts(await successor.submit(late)) == [ACCEPTED]
    assert "belongs" in str(await eventually(scribe.trouble))
    assert await stack.count() == 1


async def _has_rows(stack: Stack, number: int) -> bool:
    return await stack.count() == number
