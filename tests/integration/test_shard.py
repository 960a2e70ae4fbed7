"""
What a shard acknowledges is in the log, once, whatever happens to the shard, to the
network or to the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import ORIGIN, EntryId, Kind
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import Submission, received_ms
from ray_tracking.pipeline.rows import decode_row
from ray_tracking.pipeline.window import WindowPolicy
from ray_tracking.pipeline.write import Follower
from tests.support.proxy import Fault, Proxy
from tests.support.stack import HIGH, NORMAL, PARKED, Owner, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

ACCEPTED, DUPLICATE = Verdict.ACCEPTED, Verdict.DUPLICATE
LIMITED, UNAVAILABLE = Verdict.LIMITED, Verdict.UNAVAILABLE


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    """What became of each, and nothing more."""
    return [outcome.verdict for outcome in outcomes]


async def follow_all(stack: Stack) -> None:
    """Read every stream from its beginning as a reader does, which finds every gap."""
    for partition in range(stack.partitions):
        for lane in range(len(LANES)):
            follower = Follower(ORIGIN)
            for entry in await stack.entries(partition, lane):
                follower.accept(entry)


async def assert_logged_once(stack: Stack, *submissions: Submission) -> None:
    """The log has these events and no others, each once, and no gap."""
    expected = sorted(submission.event_id for submission in submissions)
    assert sorted(await stack.logged_ids()) == expected
    await follow_all(stack)


class Faulty:
    """A shard behind a network that fails, and events for one of its partitions."""

    def __init__(self, stack: Stack, owner: Owner, proxy: Proxy) -> None:
        self.stack = stack
        self.owner = owner
        self.proxy = proxy

    def event(self, partition: int = 0) -> Submission:
        return self.stack.event(campaignId=self.stack.campaign_in(partition))

    async def is_clear(self) -> bool:
        """Does it know of everything whether the log has it?"""
        return not (await self.owner.status())["unclear"]

    async def holds(self, events: int) -> bool:
        """Does it wait for the log with so many?"""
        return (await self.owner.status())["buffered"] == events  # type: ignore[no-any-return]


@pytest_asyncio.fixture(loop_scope="session")
async def faulty(stack: Stack) -> Faulty:
    """A shard with its connections open: it has appended one event to each partition."""
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url)
    first = [stack.event(campaignId=stack.campaign_in(n)) for n in range(stack.partitions)]
    assert set(verdicts(await owner.submit(*first))) == {ACCEPTED}
    return Faulty(stack, owner, proxy)


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
    faulty.proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    first = asyncio.create_task(faulty.owner.submit(faulty.event()))
    await faulty.proxy.struck()
    others = [asyncio.create_task(faulty.owner.submit(faulty.event())) for _ in range(10)]
    await eventually(lambda: faulty.holds(11))
    faulty.proxy.release()

    outcomes = await asyncio.gather(first, *others)

    assert {verdict for part in outcomes for verdict in verdicts(part)} == {ACCEPTED}
    assert [entry.header.count for entry in await faulty.stack.batches(0)] == [1, 1, 10]


async def test_a_full_buffer_refuses_and_takes_again_when_it_is_empty(stack: Stack) -> None:
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, max_buffered_events=2)
    await owner.submit(stack.event())
    proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    first = asyncio.create_task(owner.submit(stack.event(), stack.event()))
    await proxy.struck()
    late = stack.event()

    assert verdicts(await owner.submit(late)) == [UNAVAILABLE]
    proxy.release()
    assert verdicts(await first) == [ACCEPTED] * 2
    assert verdicts(await owner.submit(late)) == [ACCEPTED]


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
    faulty.proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    original = asyncio.create_task(faulty.owner.submit(first))
    await faulty.proxy.struck()
    repeat = asyncio.create_task(faulty.owner.submit(second))
    await asyncio.wait([repeat], timeout=0.1)
    assert not repeat.done()

    faulty.proxy.release()

    assert verdicts(await original + await repeat) == [ACCEPTED, DUPLICATE]


# -- successors ----------------------------------------------------------------------


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
    assert (await successor.status())["appended"] == 6
    await assert_logged_once(stack, *sent, last)


async def test_a_zombie_whose_append_was_delayed_cannot_append_after_a_takeover(
    faulty: Faulty,
) -> None:
    """The old owner is not told of its successor; the log itself refuses it."""
    event = faulty.event()
    before = await faulty.stack.logged_ids()
    faulty.proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    delayed = asyncio.create_task(faulty.owner.submit(event))
    await faulty.proxy.struck()

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


# -- unclear appends -----------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.LOSE_REQUEST, Fault.TEAR_REQUEST])
async def test_an_unclear_append_settles_as_exactly_one_entry(faulty: Faulty, fault: Fault) -> None:
    """
    Nobody knows whether the log has it: its callers hear so, the partition takes
    nothing else, and the same bytes are sent again until it is clear.
    """
    before = await faulty.stack.logged_ids()
    campaign = faulty.stack.campaign_in(0)
    event, retry = (
        faulty.stack.event(campaignId=campaign, leadId="l", emailId="e") for _ in range(2)
    )
    faulty.proxy.strike(b"XADD", fault, then_refuse=True)

    assert verdicts(await faulty.owner.submit(event)) == [UNAVAILABLE]
    assert (await faulty.owner.status())["unclear"] == [0]
    other = faulty.event()
    assert verdicts(await faulty.owner.submit(retry, other)) == [UNAVAILABLE] * 2

    await faulty.proxy.accept()
    await eventually(faulty.is_clear)

    assert sorted(await faulty.stack.logged_ids()) == sorted([*before, event.event_id])
    again, duplicate, new = await faulty.owner.submit(event, retry, other)
    assert (again.verdict, duplicate.verdict, new.verdict) == (ACCEPTED, DUPLICATE, ACCEPTED)
    assert duplicate.first_id == event.event_id
    assert again.position is not None
    assert duplicate.position == again.position
    assert new.position is not None
    assert new.position[3] == again.position[3] + 1
    assert sorted(await faulty.stack.logged_ids()) == sorted(
        [*before, event.event_id, other.event_id]
    )
    await follow_all(faulty.stack)
    assert faulty.owner.died is None


async def test_what_waits_behind_an_unclear_append_is_refused_and_may_be_sent_again(
    faulty: Faulty,
) -> None:
    first, waiting = faulty.event(), faulty.event()
    faulty.proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    unclear = asyncio.create_task(faulty.owner.submit(first))
    await faulty.proxy.struck()
    behind = asyncio.create_task(faulty.owner.submit(waiting))
    await eventually(lambda: faulty.holds(2))
    faulty.proxy.cut()
    faulty.proxy.refuse()

    assert verdicts(await unclear + await behind) == [UNAVAILABLE] * 2
    await faulty.proxy.accept()
    await eventually(faulty.is_clear)
    (again,) = await faulty.owner.submit(waiting)

    assert again.verdict is ACCEPTED
    assert (await faulty.stack.logged_ids()).count(first.event_id) == 1
    assert (await faulty.stack.logged_ids()).count(waiting.event_id) == 1


async def test_an_unclear_append_does_not_stop_the_other_partitions(faulty: Faulty) -> None:
    """Only the partition in doubt stands still, and only until the doubt is over."""
    faulty.proxy.strike(b"XADD", Fault.LOSE_REPLY)
    unclear = faulty.event(0)

    assert verdicts(await faulty.owner.submit(unclear)) == [UNAVAILABLE]
    assert verdicts(await faulty.owner.submit(faulty.event(1))) == [ACCEPTED]
    await eventually(faulty.is_clear)
    assert verdicts(await faulty.owner.submit(unclear)) == [ACCEPTED]


async def test_a_successor_of_an_owner_that_died_unclear_has_the_event_once(
    faulty: Faulty,
) -> None:
    """The append had gone through: the caller's retry finds it."""
    event = faulty.event()
    faulty.proxy.strike(b"XADD", Fault.LOSE_REPLY, then_refuse=True)
    assert verdicts(await faulty.owner.submit(event)) == [UNAVAILABLE]
    await faulty.owner.kill()

    successor = await faulty.stack.shard()
    (outcome,) = await successor.submit(event)

    assert outcome.verdict is ACCEPTED
    assert (await faulty.stack.logged_ids()).count(event.event_id) == 1


async def test_an_owner_in_doubt_that_was_replaced_meanwhile_ends(faulty: Faulty) -> None:
    """Its repeat would be an append behind the successor's back."""
    event = faulty.event()
    faulty.proxy.strike(b"XADD", Fault.LOSE_REQUEST, then_refuse=True)
    assert verdicts(await faulty.owner.submit(event)) == [UNAVAILABLE]
    successor = await faulty.stack.shard()

    await faulty.proxy.accept()
    await eventually(lambda: faulty.owner.died)

    assert event.event_id not in await faulty.stack.logged_ids()
    assert verdicts(await successor.submit(event)) == [ACCEPTED]
    await follow_all(faulty.stack)


# -- refusals ------------------------------------------------------------------------


async def test_a_connection_that_cannot_be_made_is_a_refusal_and_costs_no_budget(
    stack: Stack,
) -> None:
    """Nothing was sent, so nothing is unclear: the event and its rate are given back."""
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, rate=RatePolicy(max_events=1))
    event = stack.event()
    proxy.cut()
    proxy.refuse()

    assert verdicts(await owner.submit(event)) == [UNAVAILABLE]
    assert (await owner.status())["unclear"] == []
    await proxy.accept()

    assert verdicts(await owner.submit(event)) == [ACCEPTED]
    await assert_logged_once(stack, event)


@pytest_asyncio.fixture(loop_scope="session")
async def full_valkey(stack: Stack) -> AsyncIterator[Redis]:
    """The server of everybody, which is emptied again whatever the test does."""
    yield stack.redis
    await stack.redis.config_set("maxmemory", "0")


async def test_a_log_that_is_full_refuses_and_takes_the_event_later(
    stack: Stack, full_valkey: Redis
) -> None:
    owner = await stack.shard(rate=RatePolicy(max_events=2))
    first, event = stack.event(), stack.event()
    await owner.submit(first)
    await full_valkey.config_set("maxmemory", "1")

    assert verdicts(await owner.submit(event)) == [UNAVAILABLE]
    assert (await owner.status())["unclear"] == []
    await full_valkey.config_set("maxmemory", "0")

    assert verdicts(await owner.submit(event)) == [ACCEPTED]
    assert owner.died is None
    await assert_logged_once(stack, first, event)


@pytest.mark.parametrize("reconnects", [False, True])
async def test_nothing_is_acknowledged_into_a_log_that_was_emptied(
    faulty: Faulty, reconnects: bool
) -> None:
    """A stream that began anew would restart the positions that rows already have."""
    stack = faulty.stack
    scribe = await stack.writer()
    stored = await eventually(lambda: _stored(stack))
    await scribe.kill()
    await stack.redis.delete(*[stack.stream(0, lane) for lane in (HIGH, NORMAL, PARKED)])
    if reconnects:
        faulty.proxy.cut()
        await eventually(faulty.is_clear)
    event = faulty.event()

    assert verdicts(await faulty.owner.submit(event)) == [UNAVAILABLE]
    await eventually(lambda: faulty.owner.died)
    assert await stack.entries(0) == []

    successor = await stack.shard()
    (outcome,) = await successor.submit(event)
    assert outcome.verdict is ACCEPTED
    assert (await stack.entries(0))[0].id > stored


async def _stored(stack: Stack) -> EntryId | None:
    """How far the stream with an event of partition 0 has become rows, once it has."""
    stored = await stack.stored(0)
    return stored if stored > ORIGIN else None


async def test_a_log_that_was_set_back_is_noticed_at_the_next_connection(faulty: Faulty) -> None:
    """A server restored from a backup lacks what it had acknowledged."""
    stack = faulty.stack
    (entry,) = await stack.batches(1)
    await stack.redis.xdel(stack.stream(1), str(entry.id))
    faulty.proxy.strike(b"XADD", Fault.LOSE_REPLY)

    assert verdicts(await faulty.owner.submit(faulty.event(0))) == [UNAVAILABLE]
    await eventually(lambda: faulty.owner.died)


async def test_a_shard_that_starts_before_the_log_takes_events_when_it_is_there(
    stack: Stack,
) -> None:
    proxy, url = await stack.valkey_proxy()
    proxy.refuse()
    owner = await stack.shard(redis_url=url, start=False)
    event = stack.event()
    assert verdicts(await owner.submit(event)) == [UNAVAILABLE]
    assert not (await owner.status())["started"]

    await proxy.accept()

    assert verdicts(await owner.submit(event)) == [ACCEPTED]


async def test_a_shard_needs_no_postgres(stack: Stack) -> None:
    """Ingest goes on while Postgres is away, also through a restart of the shard."""
    proxy, url = await stack.postgres_proxy()
    proxy.refuse()
    owner = await stack.shard(database_url=url)

    assert verdicts(await owner.submit(stack.event())) == [ACCEPTED]


async def test_an_epoch_is_larger_than_any_that_became_rows(stack: Stack) -> None:
    """A log that was lost, under a clock that was set back, must not reuse positions."""
    epoch = int(time.time()) + 1_000_000
    await stack.sql("UPDATE log_positions SET epoch = $1, seq = 7", epoch)

    owner = await stack.shard()
    (outcome,) = await owner.submit(stack.event())

    assert outcome.position is not None
    assert outcome.position[2] == epoch + 1


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


# -- housekeeping --------------------------------------------------------------------


async def test_trimming_keeps_what_a_successor_needs_and_what_is_not_stored(stack: Stack) -> None:
    """
    Three bounds: what is not a row yet, what the windows reach back to, and the last
    entry, without which the next owner's ids would start from nothing.
    """
    base_ns = time.monotonic_ns()
    start_ms = time.time_ns() // 1_000_000
    stepped_ms = 0
    owner = await stack.shard(
        clock=lambda: start_ms + stepped_ms + (time.monotonic_ns() - base_ns) // 1_000_000,
        window=WindowPolicy(dedup_window_ms=60_000, idempotency_window_ms=60_000),
    )
    await stack.writer(partitions=[0])
    stored, unstored = stack.campaign_in(0), stack.campaign_in(1)
    await owner.submit(*[stack.event(campaignId=campaign) for campaign in (stored, unstored)])
    lasts = {lane: (await stack.entries(0, lane))[-1].id for lane in (HIGH, PARKED)}
    await eventually(stack.count)
    stepped_ms = 600_000
    recent = stack.event(campaignId=stored, leadId="l", emailId="e")
    await owner.submit(recent)
    await owner.submit(stack.event(campaignId=stored))
    (_, kept, last) = await stack.batches(0)
    await eventually(lambda: _is(stack.stored(0), last.id))

    await eventually(lambda: _is(_first_id(stack, 0), kept.id))

    for lane, only in lasts.items():
        assert only in [entry.id for entry in await stack.entries(0, lane)]
    assert (await stack.entries(1))[0].header.kind is Kind.MARKER
    await owner.kill()
    successor = await stack.shard(
        clock=lambda: start_ms + stepped_ms + (time.monotonic_ns() - base_ns) // 1_000_000
    )
    repeat = stack.event(campaignId=stored, leadId="l", emailId="e")
    assert received_ms(repeat.event_id) - received_ms(recent.event_id) < 60_000
    assert verdicts(await successor.submit(repeat)) == [DUPLICATE]


async def _first_id(stack: Stack, partition: int) -> EntryId:
    return (await stack.entries(partition))[0].id


async def _is(question: object, expected: object) -> bool:
    return await question == expected  # type: ignore[misc]


async def test_a_gap_shuts_its_partition_until_it_is_accepted(stack: Stack) -> None:
    owner = await stack.shard()
    mine, other = stack.campaign_in(0), stack.campaign_in(1)
    await owner.submit(stack.event(campaignId=mine))

    async def now(campaign: str) -> Verdict:
        (outcome,) = await owner.submit(stack.event(campaignId=campaign))
        return outcome.verdict

    async def is_now(campaign: str, verdict: Verdict) -> bool:
        return await now(campaign) is verdict

    await stack.redis.hset(f"{stack.prefix}gaps", "0", "two entries are missing")
    await eventually(lambda: is_now(mine, UNAVAILABLE))
    assert (await owner.status())["blocked"] == [0]
    assert await now(other) is ACCEPTED

    await stack.redis.hdel(f"{stack.prefix}gaps", "0")
    await eventually(lambda: is_now(mine, ACCEPTED))


async def test_a_draining_shard_finishes_what_it_took_and_takes_nothing_more(
    faulty: Faulty,
) -> None:
    faulty.proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    under_way = asyncio.create_task(faulty.owner.submit(faulty.event()))
    await faulty.proxy.struck()
    draining = asyncio.create_task(faulty.owner.shard.drain())
    await asyncio.sleep(0)

    assert verdicts(await faulty.owner.submit(faulty.event())) == [UNAVAILABLE]
    assert not draining.done()
    faulty.proxy.release()
    await draining

    assert verdicts(await under_way) == [ACCEPTED]


async def test_an_event_of_a_partition_that_it_does_not_own_is_refused(stack: Stack) -> None:
    owner = await stack.shard(partitions=[0, 1])
    elsewhere = stack.event(campaignId=stack.campaign_in(3))
    here = stack.event(campaignId=stack.campaign_in(1))

    assert verdicts(await owner.submit(elsewhere, here)) == [UNAVAILABLE, ACCEPTED]
    await assert_logged_once(stack, here)
