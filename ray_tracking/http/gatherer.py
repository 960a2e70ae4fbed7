"""
Gathers the events of many requests into one call a shard.

One call to each shard is on its way at a time, and under load they begin some milliseconds
apart; everything that arrives meanwhile goes into the next: an idle service adds no delay,
a busy one makes large calls. One call at a time also keeps a campaign's events in the
order in which they came; those of high priority go first.

A call that failed is repeated with the same ids until ``patience_s`` has passed: the
shard, or its successor, recognises what it has already appended. What was in it then is
``UNAVAILABLE``, because nobody knows what the shard did with it. What never was in a call
is ``AWAY``: it is definitely not in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from ray_tracking.errors import Unavailable
from ray_tracking.events import LANES, Lane
from ray_tracking.pipeline.gather import (
    GatherPolicy,
    Outcome,
    Verdict,
    pack,
    unpack_outcomes,
)
from ray_tracking.pipeline.level import DrainRate
from ray_tracking.pipeline.places import AWAY, UNAVAILABLE, unclear
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Submission

#: Sends a blob to a shard and returns its answer, or raises :class:`Unavailable`.
ShardCall = Callable[[int, bytes], Awaitable[bytes]]

_REPEAT_AFTER_S = 0.1
_RECENT_S = 1.0
_HIGH = LANES.index(Lane.HIGH)
#: A call that carries nothing: does the shard answer?
_NOTHING = pack([])

log = structlog.get_logger("ray_tracking.gatherer")


class _Ticket:
    """Some events of one request for one shard, and who is told their outcomes."""

    __slots__ = ("_tell", "deadline_s", "submissions")

    def __init__(
        self,
        submissions: Sequence[Submission],
        deadline_s: float,
        tell: Callable[[list[Outcome]], object],
    ) -> None:
        self.submissions = submissions
        self.deadline_s = deadline_s
        self._tell = tell

    def answer(self, outcomes: list[Outcome]) -> None:
        try:
            self._tell(outcomes)
        except Exception:
            # Whoever stands behind this one in the same call must hear of theirs.
            log.exception("an outcome was not told")


class _Queue:
    """What waits for one shard: high priority first, each in the order of arrival."""

    def __init__(self) -> None:
        self._lanes: tuple[deque[_Ticket], deque[_Ticket]] = (deque(), deque())
        self.last_call_s = 0.0
        self.last_events = 0
        self.worker: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return any(self._lanes)

    @property
    def events(self) -> int:
        return sum(len(ticket.submissions) for lane in self._lanes for ticket in lane)

    def add(self, ticket: _Ticket, *, high: bool) -> None:
        self._lanes[0 if high else 1].append(ticket)

    def next_call(self, max_events: int) -> list[_Ticket]:
        """The tickets of the next call: at least one."""
        tickets: list[_Ticket] = []
        events = 0
        for lane in self._lanes:
            while lane and (not tickets or events + len(lane[0].submissions) <= max_events):
                tickets.append(lane.popleft())
                events += len(tickets[-1].submissions)
        return tickets

    def expired(self, now_s: float) -> Iterable[_Ticket]:
        """Take out what has waited for too long."""
        for lane in self._lanes:
            while lane and lane[0].deadline_s <= now_s:
                yield lane.popleft()


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
        self._queues = {shard: _Queue() for shard in set(shard_of)}
        #: What waits here or is on its way to a shard.
        self.room = Room(policy.max_buffered_events)
        self._drained = DrainRate()

    def offer(self, submission: Submission, tell: Callable[[Outcome], object]) -> None:
        """
        Say what became of one event, as soon as it is known: now, where the buffer is full.

        Args:
            submission: The event.
            tell: Called once.
        """
        size_bytes = submission.size_bytes
        if not self.room.take(1, size_bytes):
            tell(self._full())
            return

        def told(outcomes: list[Outcome]) -> None:
            self.room.leave(1, size_bytes)
            self._drained.note(1, _now_ms())
            tell(outcomes[0])

        self._enqueue([submission], told)

    async def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """
        What became of each event, in order.

        When they do not fit into the buffer any more they are all ``FULL``. Those of a
        shard that cannot be reached do not hold up the others.
        """
        if not self.room.take(*_size(submissions)):
            return [self._full()] * len(submissions)
        return await self._submit_parts(submissions)

    def _full(self) -> Outcome:
        return Outcome(Verdict.FULL, retry_after_s=self.room_in_s())

    def linger_for(self, linger_s: float) -> None:
        """Let calls begin at most so far apart from now on."""
        self._policy = replace(self._policy, linger_s=linger_s)

    @property
    def linger_s(self) -> float:
        """How far apart the calls to a shard begin now; 0 where none was made for a while."""
        now_s = time.monotonic()
        recent = [q for q in self._queues.values() if now_s - q.last_call_s < _RECENT_S]
        return max((self._policy.linger_of(queue.last_events) for queue in recent), default=0.0)

    def room_in_s(self) -> float:
        """When what waits now has probably gone on to the shards: 1 to 30 seconds."""
        return self._drained.wait_s(self.room.events, _now_ms())

    async def drain(self) -> None:
        """Return when every event has its outcome."""
        while workers := [
            queue.worker
            for queue in self._queues.values()
            if queue.worker is not None and not queue.worker.done()
        ]:
            await asyncio.wait(workers)

    async def _submit_parts(self, submissions: Sequence[Submission]) -> list[Outcome]:
        places: dict[tuple[int, bool], list[int]] = {}
        for place, submission in enumerate(submissions):
            shard = self._shard_of[submission.partition]
            places.setdefault((shard, submission.lane == _HIGH), []).append(place)
        parts: list[tuple[list[int], asyncio.Future[list[Outcome]]]] = []
        size = self._policy.max_call_events
        loop = asyncio.get_running_loop()
        for indices in places.values():
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                told: asyncio.Future[list[Outcome]] = loop.create_future()
                events = [submissions[i] for i in part]
                self._enqueue(events, partial(self._tell, told, _size(events)))
                parts.append((part, told))
        outcomes: list[Outcome] = [UNAVAILABLE] * len(submissions)
        for part, told in parts:
            for place, outcome in zip(part, await told, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _tell(
        self,
        waiting: asyncio.Future[list[Outcome]],
        size: tuple[int, int],
        outcomes: list[Outcome],
    ) -> None:
        # Only now: what nobody waits for any more is in the queue all the same.
        self.room.leave(*size)
        self._drained.note(size[0], _now_ms())
        if not waiting.done():  # the client may have gone away
            waiting.set_result(outcomes)

    def _enqueue(
        self, submissions: Sequence[Submission], tell: Callable[[list[Outcome]], object]
    ) -> None:
        """Put in submissions that are for one shard, and all of high priority or none."""
        ticket = _Ticket(submissions, time.monotonic() + self._patience_s, tell)
        shard = self._shard_of[submissions[0].partition]
        queue = self._queues[shard]
        queue.add(ticket, high=submissions[0].lane == _HIGH)
        if queue.worker is None or queue.worker.done():
            queue.worker = asyncio.create_task(self._work(shard, queue))

    async def _work(self, shard: int, queue: _Queue) -> None:
        """Empty the queue of one shard, call by call."""
        reachable = True
        while queue:
            if not reachable:
                reachable = await self._answers(shard)
                for ticket in queue.expired(time.monotonic()):
                    ticket.answer([AWAY] * len(ticket.submissions))
                continue
            since_last_s = time.monotonic() - queue.last_call_s
            if wait_s := self._policy.wait_s(since_last_s, queue.last_events, queue.events):
                await asyncio.sleep(wait_s)
            queue.last_call_s = time.monotonic()
            tickets = queue.next_call(self._policy.max_call_events)
            queue.last_events = sum(len(ticket.submissions) for ticket in tickets)
            outcomes = None
            try:
                outcomes = await self._ask(shard, tickets)
                reachable = outcomes is not None
            except Exception:
                # Whatever it was, nobody may wait for ever; it is the callers' 503.
                log.exception("call to a shard failed", shard=shard)
            finally:
                _answer(tickets, outcomes)

    async def _answers(self, shard: int) -> bool:
        """Whether the shard can be reached again, asked with nothing in hand."""
        try:
            async with asyncio.timeout(1.0):
                await self._call(shard, _NOTHING)
            return True
        except (Unavailable, TimeoutError):
            pass
        except Exception:
            # Whatever it was, those who wait are told when their time is over.
            log.exception("a shard fails", shard=shard)
        await asyncio.sleep(_REPEAT_AFTER_S)
        return False

    async def _ask(self, shard: int, tickets: list[_Ticket]) -> list[Outcome] | None:
        """The outcomes of one call, or None when the shard stayed out of reach."""
        blob = pack([s for ticket in tickets for s in ticket.submissions])
        deadline_s = tickets[0].deadline_s
        is_repeat = False
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._patience_s):
                    outcomes = unpack_outcomes(await self._call(shard, blob))
                return [unclear(outcome) for outcome in outcomes] if is_repeat else outcomes
            except (Unavailable, TimeoutError):
                is_repeat = True
                if time.monotonic() + _REPEAT_AFTER_S > deadline_s:
                    return None
                await asyncio.sleep(_REPEAT_AFTER_S)


def _size(submissions: Sequence[Submission]) -> tuple[int, int]:
    """How many, and their bytes."""
    return len(submissions), sum([submission.size_bytes for submission in submissions])


def _answer(tickets: list[_Ticket], outcomes: list[Outcome] | None) -> None:
    start = 0
    for ticket in tickets:
        size = len(ticket.submissions)
        part = outcomes[start : start + size] if outcomes else [UNAVAILABLE] * size
        ticket.answer(part)
        start += size


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
