"""
Gathers the events of many requests into one call a shard.

One call to each shard is on its way at a time, calls begin some milliseconds apart, and
everything that arrives meanwhile goes into the next: an idle service adds no delay, a
busy one makes large calls. One call at a time also keeps a campaign's events in the
order in which they came.

A call that failed is repeated with the same ids until ``patience_s`` has passed: the
shard, or its successor, recognises what it has already appended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from ray_tracking.errors import Unavailable
from ray_tracking.pipeline.admit import RETRY_AFTER_S
from ray_tracking.pipeline.gather import (
    GatherPolicy,
    Outcome,
    Verdict,
    pack,
    unpack_outcomes,
)
from ray_tracking.pipeline.route import Submission

#: Sends a blob to a shard and returns its answer, or raises :class:`Unavailable`.
ShardCall = Callable[[int, bytes], Awaitable[bytes]]

_REPEAT_AFTER_S = 0.1

log = structlog.get_logger("ray_tracking.gatherer")

_UNAVAILABLE = Outcome(Verdict.UNAVAILABLE, retry_after_s=RETRY_AFTER_S)


class _Ticket:
    """Some events of one request for one shard, and where to put their outcomes."""

    __slots__ = ("deadline_s", "future", "submissions")

    def __init__(self, submissions: Sequence[Submission], deadline_s: float) -> None:
        self.submissions = submissions
        self.deadline_s = deadline_s
        self.future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    def answer(self, outcomes: list[Outcome]) -> None:
        if not self.future.done():  # the client may have gone away
            self.future.set_result(outcomes)


class Gatherer:
    """
    Submits events to the shards that own them.

    Args:
        call: Sends one blob to a shard.
        shard_of: The index of the shard that owns each partition.
        policy: How much goes into a call, and how much may wait for one.
        patience_s: How long a request waits for a shard that does not answer.
    """

    def __init__(
        self,
        call: ShardCall,
        shard_of: Sequence[int],
        policy: GatherPolicy,
        patience_s: float = 5.0,
    ) -> None:
        self._call = call
        self._shard_of = shard_of
        self._policy = policy
        self._patience_s = patience_s
        self._queues: dict[int, deque[_Ticket]] = {shard: deque() for shard in set(shard_of)}
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._last_call_s: dict[int, float] = {}
        #: Events that wait here or are on their way to a shard.
        self.buffered = 0

    async def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """
        What became of each event, in order.

        Events that do not fit into the buffer any more are ``UNAVAILABLE``, as are
        those of a shard that cannot be reached; the others are not held up by them.
        """
        if self.buffered and self.buffered + len(submissions) > self._policy.max_buffered_events:
            return [_UNAVAILABLE] * len(submissions)
        if len(submissions) == 1:
            shard = self._shard_of[submissions[0].partition]
            return await self._enqueue(shard, submissions).future
        places: dict[int, list[int]] = {}
        for place, submission in enumerate(submissions):
            places.setdefault(self._shard_of[submission.partition], []).append(place)
        tickets: list[tuple[list[int], _Ticket]] = []
        size = self._policy.max_call_events
        for shard, indices in places.items():
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                tickets.append((part, self._enqueue(shard, [submissions[i] for i in part])))
        outcomes: list[Outcome] = [_UNAVAILABLE] * len(submissions)
        for part, ticket in tickets:
            for place, outcome in zip(part, await ticket.future, strict=True):
                outcomes[place] = outcome
        return outcomes

    async def drain(self) -> None:
        """Return when every event has its outcome."""
        while workers := [task for task in self._workers.values() if not task.done()]:
            await asyncio.wait(workers)

    def _enqueue(self, shard: int, submissions: Sequence[Submission]) -> _Ticket:
        ticket = _Ticket(submissions, time.monotonic() + self._patience_s)
        self.buffered += len(submissions)
        self._queues[shard].append(ticket)
        worker = self._workers.get(shard)
        if worker is None or worker.done():
            self._workers[shard] = asyncio.create_task(self._work(shard))
        return ticket

    async def _work(self, shard: int) -> None:
        """Empty the queue of one shard, call by call."""
        queue = self._queues[shard]
        while queue:
            waiting = sum(len(ticket.submissions) for ticket in queue)
            since_last_s = time.monotonic() - self._last_call_s.get(shard, 0.0)
            if wait_s := self._policy.wait_s(since_last_s, waiting):
                await asyncio.sleep(wait_s)
            self._last_call_s[shard] = time.monotonic()
            tickets = self._next_call(queue)
            outcomes = None
            try:
                outcomes = await self._ask(shard, tickets)
            except Exception:
                # Whatever it was, nobody may wait for ever; it is the callers' 503.
                log.exception("call to a shard failed", shard=shard)
            finally:
                self._answer(tickets, outcomes)

    def _next_call(self, queue: deque[_Ticket]) -> list[_Ticket]:
        tickets = [queue.popleft()]
        events = len(tickets[0].submissions)
        while queue and events + len(queue[0].submissions) <= self._policy.max_call_events:
            tickets.append(queue.popleft())
            events += len(tickets[-1].submissions)
        return tickets

    async def _ask(self, shard: int, tickets: list[_Ticket]) -> list[Outcome] | None:
        """The outcomes of one call, or None when the shard stayed out of reach."""
        blob = pack([s for ticket in tickets for s in ticket.submissions])
        deadline_s = tickets[0].deadline_s
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._patience_s):
                    return unpack_outcomes(await self._call(shard, blob))
            except (Unavailable, TimeoutError):
                if time.monotonic() + _REPEAT_AFTER_S > deadline_s:
                    return None
                await asyncio.sleep(_REPEAT_AFTER_S)

    def _answer(self, tickets: list[_Ticket], outcomes: list[Outcome] | None) -> None:
        start = 0
        for ticket in tickets:
            size = len(ticket.submissions)
            self.buffered -= size
            part = outcomes[start : start + size] if outcomes else [_UNAVAILABLE] * size
            ticket.answer(part)
            start += size
