"""
The log out of reach: every event is told at once that it is not there, nobody waits, and the
shard finds its way back by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from ray_tracking.events import LANES
from ray_tracking.pipeline.route import Submission
from tests.support.clocks import MovableClock
from tests.support.proxy import Fault, Proxy
from tests.support.shards import (
    ACCEPTED,
    AWAY,
    DUPLICATE,
    UNAVAILABLE,
    Faulty,
    at_once,
    follow_all,
    held,
    turns,
    verdicts,
)
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

#: Whatever happens, an answer is there by then: some time-outs of the log after each other.
_ANSWERED_WITHIN_S = 8.0
#: Back after so long, on a machine that is busy: the breaker asks every few seconds.
_BACK_WITHIN_S = 20.0


async def refuse(proxy: Proxy) -> None:
    """The server is down."""
    proxy.cut()
    proxy.refuse()


async def pause(proxy: Proxy) -> None:
    """The network is gone: nothing comes through, and nobody says so."""
    proxy.pause()


async def dead_cable(proxy: Proxy) -> None:
    """The connection is dead, and then there is no other."""
    proxy.strike(b"XADD", Fault.DEAD_CABLE)
    proxy.refuse()


OUTAGES = [refuse, pause, dead_cable]
Outage = Callable[[Proxy], Awaitable[None]]


async def until_open(faulty: Faulty) -> list[tuple[Submission, object]]:
    """Send events until the breaker opens; what became of each."""
    told = []
    async with asyncio.timeout(_BACK_WITHIN_S):
        while await faulty.is_closed():
            event = faulty.event(len(told) % faulty.stack.partitions)
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                (outcome,) = await faulty.owner.submit(event)
            told.append((event, outcome.verdict))
    return told


async def mend(proxy: Proxy) -> None:
    """All is well again."""
    proxy.release()
    proxy.resume()
    await proxy.accept()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_while_the_log_is_out_of_reach_events_are_away_and_afterwards_it_takes_them(
    faulty: Faulty, outage: Outage
) -> None:
    await outage(faulty.proxy)

    told = await until_open(faulty)
    # One append was sent before it was known: of that nobody knows. All others are away.
    assert Counter(verdict for _, verdict in told)[UNAVAILABLE] <= 1
    assert {verdict for _, verdict in told} <= {AWAY, UNAVAILABLE}
    breaker = (await faulty.owner.status())["breaker"]
    assert breaker["state"] != "closed"
    assert breaker["openedAt"] is not None
    away = [faulty.event(n) for n in range(4)]
    for _ in range(10):
        # At once: nothing is asked of anybody.
        assert set(verdicts(await at_once(faulty.owner.submit(*away)))) == {AWAY}

    await mend(faulty.proxy)
    await eventually(faulty.is_closed, _BACK_WITHIN_S)
    await eventually(faulty.is_clear)

    assert (await faulty.owner.status())["breaker"]["openedAt"] is None
    assert faulty.owner.died is None
    # No event was used to try whether it works again.
    logged = await faulty.stack.logged_ids()
    unclear = [event for event, verdict in told if verdict is UNAVAILABLE]
    assert sorted(logged) == sorted(e.event_id for e in [*faulty.logged, *unclear])
    assert set(verdicts(await faulty.owner.submit(*away))) == {ACCEPTED}
    await follow_all(faulty.stack)


async def test_while_it_asks_whether_the_log_is_back_events_are_still_away(faulty: Faulty) -> None:
    """Its trial is a question of its own: an event would wait, or be in doubt."""
    await refuse(faulty.proxy)
    await until_open(faulty)
    faulty.proxy.strike(b"XREVRANGE", Fault.HOLD_REQUEST)
    await faulty.proxy.accept()
    await faulty.proxy.struck()
    assert await faulty.breaker() == "half_open"

    assert verdicts(await at_once(faulty.owner.submit(faulty.event()))) == [AWAY]
    faulty.proxy.release()
    await eventually(faulty.is_closed, _BACK_WITHIN_S)


async def test_behind_an_append_that_takes_long_nobody_waits(stack: Stack) -> None:
    """It may still get there, and its own callers wait for that; nobody else does."""
    clock = MovableClock()
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, clock=clock)
    await owner.submit(stack.event())
    event = stack.event(leadId="l", emailId="e")
    under_way = await held(proxy, owner, event)
    clock.move(1001)

    retry = stack.event(leadId="l", emailId="e")
    assert verdicts(await at_once(owner.submit(retry, stack.event()))) == [AWAY, AWAY]
    proxy.release()
    assert verdicts(await under_way) == [ACCEPTED]
    assert verdicts(await owner.submit(event, retry)) == [ACCEPTED, DUPLICATE]


async def test_a_log_that_answers_every_time_but_slowly_is_left_alone_for_a_while(
    stack: Stack,
) -> None:
    clock = MovableClock()
    proxy, url = await stack.valkey_proxy()
    owner = await stack.shard(redis_url=url, clock=clock)
    slow = Faulty(stack, owner, proxy, [])
    for _ in range(3):
        assert await slow.is_closed()
        under_way = await held(proxy, owner, slow.event())
        clock.move(1001)
        proxy.release()
        assert verdicts(await under_way) == [ACCEPTED]
    await turns()

    assert await slow.is_open()
    assert verdicts(await at_once(owner.submit(slow.event()))) == [AWAY]
    await eventually(slow.is_closed, _BACK_WITHIN_S)


async def test_what_waits_behind_an_append_that_fails_late_is_answered_with_it(
    faulty: Faulty,
) -> None:
    """It has waited for one time-out: it must not wait for the next one, and the one after."""
    faulty.proxy.pause()
    first = asyncio.create_task(faulty.owner.submit(faulty.event(0)))
    await eventually(lambda: faulty.holds(1))
    waiting = asyncio.create_task(faulty.owner.submit(faulty.event(1)))

    async with asyncio.timeout(_ANSWERED_WITHIN_S):
        assert verdicts(await first) == [UNAVAILABLE]
    assert verdicts(await at_once(waiting)) == [AWAY]


async def test_a_log_far_away_is_taken_back_all_the_same(faulty: Faulty) -> None:
    """
    After an outage every stream is looked at. One question after the other would take so
    many round trips that each trial seemed slow, and the breaker never closed again.
    """
    await refuse(faulty.proxy)
    await until_open(faulty)
    faulty.proxy.latency_s = 0.15  # times 12 streams is more than an append may take
    await mend(faulty.proxy)

    assert faulty.stack.partitions * len(LANES) * faulty.proxy.latency_s > 1.0
    await eventually(faulty.is_closed, _BACK_WITHIN_S)
    assert verdicts(await faulty.owner.submit(faulty.event())) == [ACCEPTED]


async def test_a_shard_that_has_not_started_answers_too(stack: Stack) -> None:
    proxy, url = await stack.valkey_proxy()
    proxy.pause()
    owner = await stack.shard(redis_url=url, start=False)
    events = [stack.event() for _ in range(3)]

    async with asyncio.timeout(_ANSWERED_WITHIN_S):
        told = await asyncio.gather(*[owner.submit(event) for event in events])
    assert [verdicts(outcomes) for outcomes in told] == [[AWAY]] * 3

    proxy.resume()
    assert verdicts(await owner.submit(*events)) == [ACCEPTED] * 3


async def test_a_drain_does_not_wait_for_a_log_that_is_away(faulty: Faulty) -> None:
    """A shard that is told to end while the log is out of reach has nothing to wait for."""
    await refuse(faulty.proxy)
    await until_open(faulty)

    async with asyncio.timeout(_ANSWERED_WITHIN_S):
        await faulty.owner.shard.drain()


async def test_through_any_outage_an_answer_is_never_wrong(faulty: Faulty) -> None:
    """Accepted is in the log, away is not, and whatever it is, it is not there twice."""
    told: list[tuple[Submission, object]] = []
    sending = True

    async def send(partition: int) -> None:
        while sending:
            event = faulty.event(partition)
            (outcome,) = await faulty.owner.submit(event)
            told.append((event, outcome.verdict))
            await asyncio.sleep(0.01)

    senders = [asyncio.create_task(send(n)) for n in range(faulty.stack.partitions)]
    faults = [
        *[Fault.LOSE_REPLY, Fault.TEAR_REQUEST, Fault.LOSE_REQUEST, Fault.LOSE_REPLY],
        *[Fault.TEAR_REQUEST, Fault.DEAD_CABLE],
    ]
    for number, fault in enumerate(faults):
        await eventually(faulty.is_closed, _BACK_WITHIN_S)
        faulty.proxy.strike(b"XADD", fault, then_refuse=number % 2 == 1)
        await faulty.proxy.struck()
        if fault is Fault.DEAD_CABLE:
            faulty.proxy.refuse()
            await eventually(lambda: AWAY in [verdict for _, verdict in told[-4:]])
        await faulty.proxy.accept()
    await eventually(faulty.is_closed, _BACK_WITHIN_S)
    sending = False
    await asyncio.gather(*senders)
    await eventually(faulty.is_clear)

    logged = Counter(await faulty.stack.logged_ids())
    assert set(logged.values()) == {1}
    of = {verdict: {e.event_id for e, v in told if v is verdict} for _, verdict in told}
    assert of.keys() <= {ACCEPTED, AWAY, UNAVAILABLE}
    assert of[ACCEPTED] <= logged.keys()
    assert not of.get(AWAY, set()) & logged.keys()
    await follow_all(faulty.stack)
    assert faulty.owner.died is None
