"""What tests of a shard ask about it and about its log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ray_tracking.events import LANES
from ray_tracking.pipeline.append import ORIGIN
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.route import Submission
from ray_tracking.pipeline.write import Follower
from tests.support.parts import Owner
from tests.support.proxy import Fault, Proxy
from tests.support.stack import Stack

ACCEPTED, DUPLICATE, LIMITED = Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.LIMITED
UNAVAILABLE, AWAY, FULL = Verdict.UNAVAILABLE, Verdict.AWAY, Verdict.FULL

#: An answer for which nothing has to be asked of anybody is there after so many turns.
_TURNS = 20


def verdicts(outcomes: Iterable[Outcome]) -> list[Verdict]:
    """What became of each, and nothing more."""
    return [outcome.verdict for outcome in outcomes]


async def turns() -> None:
    """Let everything go on that waits for nothing but its turn."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def at_once(answer: Any) -> Any:
    """An answer that nobody had to wait for: neither for the log nor for any time."""
    task = asyncio.ensure_future(answer)
    await turns()
    assert task.done(), "it waits for something"
    return await task


async def held(proxy: Proxy, owner: Owner, *events: Submission) -> asyncio.Task[list[Outcome]]:
    """Submit events; their append is kept back until the proxy is told to release it."""
    proxy.strike(b"XADD", Fault.HOLD_REQUEST)
    under_way = asyncio.create_task(owner.submit(*events))
    await proxy.struck()
    return under_way


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

    def __init__(
        self, stack: Stack, owner: Owner, proxy: Proxy, logged: Iterable[Submission]
    ) -> None:
        self.stack = stack
        self.owner = owner
        self.proxy = proxy
        #: What it has appended already.
        self.logged = list(logged)

    def event(self, partition: int = 0) -> Submission:
        """A new event of a partition."""
        return self.stack.event(campaignId=self.stack.campaign_in(partition))

    async def is_clear(self) -> bool:
        """Does it know of everything whether the log has it?"""
        return not (await self.owner.status())["unclear"]

    async def holds(self, events: int) -> bool:
        """Does it wait for the log with so many?"""
        return (await self.owner.status())["buffered"] == events  # type: ignore[no-any-return]

    async def breaker(self) -> str:
        """How its circuit breaker stands."""
        return (await self.owner.status())["breaker"]["state"]  # type: ignore[no-any-return]

    async def is_open(self) -> bool:
        """Does the breaker keep it away from the log?"""
        return await self.breaker() == "open"

    async def is_closed(self) -> bool:
        """Does the breaker let everything through?"""
        return await self.breaker() == "closed"

    async def takes(self, event: Submission) -> bool:
        """Does it take an event now?"""
        (outcome,) = await self.owner.submit(event)
        return outcome.verdict is ACCEPTED
