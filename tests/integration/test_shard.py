"""What a shard acknowledges is in the log, once; and what it has no room for, or no budget."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import msgspec
import pytest

from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.room import MAX_WAITING_BYTES
from ray_tracking.pipeline.route import REDRIVE, Submission
from ray_tracking.pipeline.rows import decode_row
from tests.support.shards import (
    ACCEPTED,
    DUPLICATE,
    FULL,
    LIMITED,
    Faulty,
    assert_logged_once,
    at_once,
    held,
    turns,
    verdicts,
)
from tests.support.stack import HIGH, NORMAL, PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

# -- what an acknowledgement means ---------------------------------------------------


async def test_an_accepted_event_stands_in_the_log_where_the_answer_says(stack: Stack) -> None:
    owner = await stack.shard()
    campaign = stack.campaign_in(2)
    sent = [
        stack.event(campaignId=campaign, leadId="l1"),
        stack.event("LINK_CLICK", campaignId=campaign, leadId="l2", linkUrl="https://a.example/?b"),
        stack.event("EMAIL_BOUNCE", campaignId=campaign, leadId="l3"),
    ]

    outcomes = await owner.submit(*sent)

    assert verdicts(outcomes) == [ACCEPTED] * 3
    positions = [outcome.position for outcome in outcomes]
    assert [p and (p[0], p[1], p[4]) for p in positions] == [
        (2, NORMAL, 0),
        (2, NORMAL, 1),
        (2, HIGH, 0),
    ]
    for submission, position in zip(sent, positions, strict=True):
        assert position is not None
        partition, lane, epoch, seq, index = position
        (entry,) = [e for e in await stack.batches(partition, lane) if e.id == (epoch, seq)]
        assert entry.header.event_ids[16 * index : 16 * index + 16] == submission.event_id
        assert entry.rows[index] == submission.row


async def test_the_header_of_an_entry_tells_of_its_events_without_its_body(stack: Stack) -> None:
    """Windows are rebuilt and books are closed from headers alone."""
    owner = await stack.shard()
    one, two = stack.campaign_in(1, "one"), stack.campaign_in(1, "two")
    sent = [stack.event(campaignId=campaign) for campaign in (one, two, one)]
    before_ms = time.time_ns() // 1_000_000

    await owner.submit(*sent)

    (entry,) = await stack.batches(1)
    header = entry.header
    assert (header.count, header.total) == (3, 3)
    assert header.keys == [one, two]
    assert header.event_ids == b"".join(s.event_id for s in sent)
    assert header.digests == b"".join(s.digest for s in sent)
    assert before_ms - 1 <= header.appended_ms <= time.time_ns() // 1_000_000 + 1
    assert [decode_row(row)["campaign_id"] for row in entry.rows] == [one, two, one]


async def test_ids_follow_each_other_without_a_gap_also_under_load(stack: Stack) -> None:
    owner = await stack.shard(max_entry_events=3)
    sent = [[stack.event(campaignId=f"c{n % 7}") for n in range(5)] for _ in range(20)]

    outcomes = await asyncio.gather(*[owner.submit(*part) for part in sent])

    assert {verdict for part in outcomes for verdict in verdicts(part)} == {ACCEPTED}
    await assert_logged_once(stack, *[s for part in sent for s in part])
    for partition in range(stack.partitions):
        ids = [entry.id for entry in await stack.entries(partition)]
        assert all(later == (earlier.epoch, earlier.seq + 1) for earlier, later in pairwise(ids))


async def test_events_that_arrive_during_an_append_go_together_in_the_next(faulty: Faulty) -> None:
    """An fsync for each event would be the end of throughput."""
    first = await held(faulty.proxy, faulty.owner, faulty.event())
    others = [asyncio.create_task(faulty.owner.submit(faulty.event())) for _ in range(10)]
    await eventually(lambda: faulty.holds(11))
    faulty.proxy.release()

    outcomes = await asyncio.gather(first, *others)

    assert {verdict for part in outcomes for verdict in verdicts(part)} == {ACCEPTED}
    assert [entry.header.count for entry in await faulty.stack.batches(0)] == [1, 1, 10]


async def test_a_call_that_carries_nothing_is_answered(stack: Stack) -> None:
    """Ingress asks so whether a shard that was out of reach is back."""
    owner = await stack.shard(max_buffered_events=1)

    assert await owner.submit() == []


# -- duplicates ----------------------------------------------------------------------


async def test_the_same_event_twice_in_one_call_is_appended_once(stack: Stack) -> None:
    owner = await stack.shard()
    first, second = (stack.event(leadId="l", emailId="e") for _ in range(2))

    original, repeat = await owner.submit(first, second)

    assert (original.verdict, repeat.verdict) == (ACCEPTED, DUPLICATE)
    assert (repeat.position, repeat.first_id) == (original.position, first.event_id)
    await assert_logged_once(stack, first)


async def test_a_duplicate_names_the_first_and_where_it_is(stack: Stack) -> None:
    owner = await stack.shard()
    first, second = (stack.event(leadId="l", emailId="e") for _ in range(2))
    (original,) = await owner.submit(first)

    (repeat,) = await owner.submit(second)

    assert repeat.verdict is DUPLICATE
    assert (repeat.position, repeat.first_id) == (original.position, first.event_id)
    await assert_logged_once(stack, first)


async def test_a_repeat_of_a_call_is_accepted_again_and_appended_once(stack: Stack) -> None:
    """Ingress repeats a call that it got no answer to: the caller must not hear "duplicate"."""
    owner = await stack.shard()
    sent = [stack.event(), stack.event("EMAIL_BOUNCE")]
    first = await owner.submit(*sent)

    assert await owner.submit(*sent) == first
    await assert_logged_once(stack, *sent)


async def test_a_duplicate_of_an_event_on_its_way_waits_for_its_outcome(faulty: Faulty) -> None:
    """Told "duplicate" at once, its caller would rely on an event that may never arrive."""
    campaign = faulty.stack.campaign_in(0)
    first, second = (
        faulty.stack.event(campaignId=campaign, leadId="l", emailId="e") for _ in range(2)
    )
    original = await held(faulty.proxy, faulty.owner, first)
    repeat = asyncio.create_task(faulty.owner.submit(second))
    await asyncio.wait([repeat], timeout=0.1)
    assert not repeat.done()

    faulty.proxy.release()

    assert verdicts(await original + await repeat) == [ACCEPTED, DUPLICATE]


# -- rate ----------------------------------------------------------------------------


async def test_hits_over_the_rate_are_parked_and_api_events_are_refused(stack: Stack) -> None:
    """Nobody can send a pixel's hit again, so it is kept for when the budget allows."""
    owner = await stack.shard(rate=RatePolicy(max_events=1))
    first, refused, hit = stack.event(), stack.event(), stack.event(token="token")

    outcomes = await owner.submit(first, refused, hit)

    assert verdicts(outcomes) == [ACCEPTED, LIMITED, ACCEPTED]
    position = outcomes[2].position
    assert position is not None
    assert position[1] == PARKED
    (entry,) = await stack.batches(position[0], PARKED)
    assert entry.header.event_ids == hit.event_id
    await assert_logged_once(stack, first, hit)


async def test_a_parked_hit_that_comes_again_is_the_same_hit(stack: Stack) -> None:
    owner = await stack.shard(rate=RatePolicy(max_events=1))
    first, hit = stack.event(), stack.event(token="token")
    await owner.submit(first, hit)
    await owner.kill()

    successor = await stack.shard(rate=RatePolicy(max_events=1))
    outcomes = await successor.submit(stack.event(token="token"), hit)

    assert verdicts(outcomes) == [DUPLICATE, ACCEPTED]
    await assert_logged_once(stack, first, hit)


async def test_a_redriven_letter_goes_past_the_window_and_the_rate(stack: Stack) -> None:
    """The log has seen its id before; that is what a dead letter is."""
    owner = await stack.shard(rate=RatePolicy(max_events=1))
    event = stack.event()
    await owner.submit(event)
    letter = msgspec.structs.replace(event, flags=event.flags | REDRIVE)

    (outcome,) = await owner.submit(letter)

    assert outcome.verdict is ACCEPTED
    assert outcome.position is not None
    assert EntryId(*outcome.position[2:4]) == (await stack.entries(letter.partition))[-1].id
    assert (await stack.logged_ids()).count(event.event_id) == 2
    assert verdicts(await owner.submit(event, stack.event())) == [ACCEPTED, LIMITED]


# -- room ----------------------------------------------------------------------------


async def test_a_full_buffer_refuses_and_takes_again_when_it_is_empty(stack: Stack) -> None:
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, max_buffered_events=2)
    await owner.submit(stack.event())
    first = await held(proxy, owner, stack.event(), stack.event())
    late = stack.event()

    (outcome,) = await at_once(owner.submit(late))
    assert outcome.verdict is FULL
    assert outcome.retry_after_s >= 1
    assert (await owner.status())["buffered"] == 2
    proxy.release()
    assert verdicts(await first) == [ACCEPTED] * 2
    assert (await owner.status())["buffered"] == 0
    assert verdicts(await owner.submit(late)) == [ACCEPTED]


def heavy(stack: Stack, size_bytes: int) -> Submission:
    """An event whose row is so large; the log does not mind what is in it."""
    return msgspec.structs.replace(stack.event(), row=b"r" * size_bytes)


async def test_what_waits_is_bounded_by_bytes_too(stack: Stack) -> None:
    """Ten thousand events may be a gigabyte."""
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url)
    await owner.submit(stack.event())
    half, other_half = (heavy(stack, MAX_WAITING_BYTES // 2) for _ in range(2))
    first = await held(proxy, owner, stack.event())
    waiting = [asyncio.create_task(owner.submit(event)) for event in (half, stack.event())]
    await turns()

    assert verdicts(await at_once(owner.submit(other_half))) == [FULL]
    status = await owner.status()
    assert status["buffered"] == 3
    assert MAX_WAITING_BYTES // 2 < status["buffered_bytes"] < MAX_WAITING_BYTES
    await owner.kill()
    for task in (first, *waiting):
        task.cancel()
    await asyncio.wait([first, *waiting])
    assert (await owner.status())["buffered_bytes"] == 0


async def test_who_finds_no_room_is_told_when_there_will_be_some(stack: Stack) -> None:
    """By the rate at which the log took events lately."""
    now_ms = time.time_ns() // 1_000_000
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, max_buffered_events=30, clock=lambda: now_ms)
    waits_s = []
    for pause_ms in (0, 0, 9_000, 60_000):
        now_ms += pause_ms
        under_way = await held(proxy, owner, *[stack.event() for _ in range(30)])
        (outcome,) = await at_once(owner.submit(stack.event()))
        proxy.release()
        assert verdicts(await under_way) == [ACCEPTED] * 30
        assert outcome.verdict is FULL
        waits_s.append(outcome.retry_after_s)

    # Nothing is known yet; 30 in the last second; 60 in nine seconds; none in the last ten.
    assert waits_s == [30.0, 1.0, 4.5, 30.0]


async def test_a_draining_shard_finishes_what_it_took_and_takes_nothing_more(
    faulty: Faulty,
) -> None:
    under_way = await held(faulty.proxy, faulty.owner, faulty.event())
    draining = asyncio.create_task(faulty.owner.shard.drain())
    await asyncio.sleep(0)

    assert verdicts(await faulty.owner.submit(faulty.event())) == [FULL]
    assert not draining.done()
    faulty.proxy.release()
    await draining

    assert verdicts(await under_way) == [ACCEPTED]


async def test_an_event_of_a_partition_that_it_does_not_own_is_refused(stack: Stack) -> None:
    owner = await stack.shard(partitions=[0, 1])
    elsewhere = stack.event(campaignId=stack.campaign_in(3))
    here = stack.event(campaignId=stack.campaign_in(1))

    assert verdicts(await owner.submit(elsewhere, here)) == [FULL, ACCEPTED]
    await assert_logged_once(stack, here)
