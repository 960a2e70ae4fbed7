"""
Between an append and its answer anything may be lost. What a shard says then is never a
guess: in the log, not in the log, or unclear until it is clear.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ray_tracking.pipeline.append import ORIGIN, EntryId, SpoolChunk
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.embedded import EmbeddedServers, ServerUrls
from tests.support.parts import Owner
from tests.support.proxy import Fault
from tests.support.shards import (
    ACCEPTED,
    AWAY,
    DUPLICATE,
    FULL,
    LIMITED,
    UNAVAILABLE,
    Faulty,
    assert_logged_once,
    at_once,
    follow_all,
    held,
    verdicts,
)
from tests.support.stack import HIGH, NORMAL, PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

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
    # The event itself may be in the log and must not be spooled; a retry of its client and
    # another one are events of their own, and certainly are not.
    outcomes = await at_once(faulty.owner.submit(event, retry, other))
    assert verdicts(outcomes) == [UNAVAILABLE, AWAY, AWAY]

    await faulty.proxy.accept()
    await eventually(faulty.is_clear)
    await eventually(faulty.is_closed)

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
    unclear = await held(faulty.proxy, faulty.owner, first)
    behind = asyncio.create_task(faulty.owner.submit(waiting))
    await eventually(lambda: faulty.holds(2))
    faulty.proxy.cut()
    faulty.proxy.refuse()

    assert verdicts(await unclear + await behind) == [UNAVAILABLE, AWAY]
    await faulty.proxy.accept()
    await eventually(faulty.is_clear)
    await eventually(faulty.is_closed)
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

    assert verdicts(await owner.submit(event)) == [AWAY]
    assert (await owner.status())["unclear"] == []
    await proxy.accept()

    assert verdicts(await owner.submit(event)) == [ACCEPTED]
    await assert_logged_once(stack, event)


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
    assert verdicts(await owner.submit(event)) == [AWAY]
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


# -- no memory -----------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small_valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A Valkey of our own: the others go on working when its memory is full."""
    running = await EmbeddedServers.start(
        tmp_path_factory.mktemp("small"), postgres=False, valkey=True
    )
    assert running.urls.redis_url is not None
    yield running.urls.redis_url
    await running.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def cramped(servers: ServerUrls, small_valkey: str) -> AsyncIterator[Stack]:
    """A deployment on it."""
    assert servers.database_url is not None
    stack = Stack(servers.database_url, small_valkey)
    await stack.open()
    yield stack
    await stack.redis.config_set("maxmemory", "0")
    await stack.close()


async def fill_up(stack: Stack) -> None:
    """From now on its server has no memory for anything new."""
    used = (await stack.redis.info("memory"))["used_memory"]
    await stack.redis.config_set("maxmemory", str(used // 2))


async def test_a_log_without_memory_refuses_and_takes_the_events_later(cramped: Stack) -> None:
    """What it refused is definitely not there: it is spooled, and drained when there is room."""
    await cramped.report_spool("spool-1")
    owner = await cramped.shard(rate=RatePolicy(max_events=7))
    first, spooled = cramped.event(), [cramped.event() for _ in range(5)]
    await owner.submit(first)
    await fill_up(cramped)

    refused = [outcome for event in spooled for outcome in await owner.submit(event)]
    assert verdicts(refused) == [AWAY] * 5
    chunk = ("spool-1", 0, 5)
    assert set(verdicts(await owner.drain_spool(chunk, *spooled))) == {AWAY}
    assert (await owner.status())["unclear"] == []
    assert verdicts(await owner.submit(first)) == [ACCEPTED]
    await assert_logged_once(cramped, first)
    await cramped.redis.config_set("maxmemory", "0")

    await eventually(lambda: drains(owner, chunk, spooled))
    # Nothing was charged for what was refused: there is budget for just one more.
    outcomes = await owner.submit(cramped.event(), cramped.event())
    assert verdicts(outcomes) == [ACCEPTED, LIMITED]
    assert owner.died is None
    logged = await cramped.logged_ids()
    assert sorted(logged)[:6] == sorted(e.event_id for e in [first, *spooled])
    assert len(logged) == len(set(logged)) == 7
    await follow_all(cramped)


async def test_a_spool_is_drained_only_when_it_is_reported(stack: Stack) -> None:
    """Without its report a shard may have forgotten what its events must be compared with."""
    owner, event = await stack.shard(), stack.event()
    chunk = ("spool-1", 0, 1)

    assert verdicts(await owner.drain_spool(chunk, event)) == [FULL]
    assert await stack.logged_ids() == []
    await stack.report_spool("spool-1")

    await eventually(lambda: drains(owner, chunk, [event]))
    await assert_logged_once(stack, event)


async def drains(owner: Owner, chunk: SpoolChunk, events: list[Submission]) -> bool:
    """Is all of a chunk in the log?"""
    return set(verdicts(await owner.drain_spool(chunk, *events))) == {ACCEPTED}


async def test_without_memory_an_unclear_append_stays_unclear(cramped: Stack) -> None:
    """That its repeat is refused says nothing of the first try."""
    proxy, url = await cramped.valkey_proxy()
    owner = await cramped.shard(redis_url=url)
    first, event = (cramped.event(campaignId=cramped.campaign_in(0)) for _ in range(2))
    await owner.submit(first)
    proxy.strike(b"XADD", Fault.LOSE_REPLY, then_refuse=True)
    assert verdicts(await owner.submit(event)) == [UNAVAILABLE]
    await fill_up(cramped)
    await proxy.accept()
    await eventually(lambda: _has_failed(owner, 4))

    assert verdicts(await owner.submit(event)) == [UNAVAILABLE]
    await cramped.redis.config_set("maxmemory", "0")
    await eventually(lambda: _is_clear(owner))

    assert verdicts(await owner.submit(event)) == [ACCEPTED]
    await assert_logged_once(cramped, first, event)


async def _is_clear(owner: Owner) -> bool:
    return not (await owner.status())["unclear"]


async def _has_failed(owner: Owner, times: int) -> bool:
    failures: int = (await owner.status())["breaker"]["failures"]
    return failures >= times
