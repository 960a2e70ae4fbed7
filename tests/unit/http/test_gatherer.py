"""Gatherer: what it says of events whose shard fails, and what it keeps room for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ray_tracking.errors import Unavailable
from ray_tracking.http.gatherer import Gatherer
from ray_tracking.pipeline.gather import (
    GatherPolicy,
    Outcome,
    Verdict,
    pack_outcomes,
    unpack,
)
from ray_tracking.pipeline.places import ACCEPTED
from tests.support.waiting import eventually
from tests.unit.pipeline.samples import submission

#: What a shard does with one call after the other; the last goes on.
Turn = Exception | Outcome


def gatherer(*turns: Turn, patience_s: float = 5.0, calls: list[bytes] | None = None) -> Gatherer:
    """In front of one shard that answers, or fails, so."""
    left = list(turns)

    async def call(shard: int, blob: bytes) -> bytes:
        if calls is not None:
            calls.append(blob)
        turn = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(turn, Exception):
            raise turn
        return pack_outcomes([turn] * len(unpack(blob)))

    return Gatherer(call, [0] * 4, GatherPolicy(max_buffered_events=10), patience_s)


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


@pytest.mark.parametrize("said", [Verdict.AWAY, Verdict.FULL])
async def test_what_may_have_arrived_is_never_said_not_to_be_in_the_log(said: Verdict) -> None:
    """A shard that cannot reach the log says so without looking what it had before."""
    again = gatherer(Unavailable("killed"), Outcome(said))
    assert verdicts(await again.submit([submission(1)])) == [Verdict.UNAVAILABLE]
    at_once = gatherer(Outcome(said))
    assert verdicts(await at_once.submit([submission(1)])) == [said]


async def test_a_repeat_that_is_answered_is_as_good_as_the_first() -> None:
    calls: list[bytes] = []
    outcomes = await gatherer(Unavailable("killed"), ACCEPTED, calls=calls).submit([submission(1)])
    assert verdicts(outcomes) == [Verdict.ACCEPTED]
    assert calls[0] == calls[1]


async def test_nobody_waits_for_ever_behind_a_shard_that_is_there_and_broken() -> None:
    """What never was in a call is not in the log."""
    killed = asyncio.Event()
    calls = 0

    async def call(shard: int, blob: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyError("broken")
        await killed.wait()
        raise Unavailable("killed")

    shard = Gatherer(call, [0] * 4, GatherPolicy(), 0.05)
    first = asyncio.create_task(shard.submit([submission(1)]))
    await eventually(lambda: calls == 1)
    behind = asyncio.create_task(shard.submit([submission(2)]))
    await eventually(lambda: shard.room.events == 2)
    killed.set()
    async with asyncio.timeout(20):
        assert verdicts(await first) == [Verdict.UNAVAILABLE]
        assert verdicts(await behind) == [Verdict.AWAY]
    assert shard.room.events == 0


async def test_events_whose_client_has_gone_take_room_until_they_are_through() -> None:
    answer = asyncio.Event()

    async def call(shard: int, blob: bytes) -> bytes:
        await answer.wait()
        return pack_outcomes([ACCEPTED] * len(unpack(blob)))

    waiting = Gatherer(call, [0] * 4, GatherPolicy(max_buffered_events=10), 30.0)
    gone = asyncio.create_task(waiting.submit([submission(n) for n in range(10)]))
    await eventually(lambda: waiting.room.events == 10)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert verdicts(await waiting.submit([submission(11)])) == [Verdict.FULL]
    answer.set()
    await waiting.drain()
    assert (waiting.room.events, waiting.room.size_bytes) == (0, 0)
