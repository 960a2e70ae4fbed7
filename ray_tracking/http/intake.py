"""
Where every event of a replica goes: to its shard, or else into the spool of this node.

An event is spooled when it is definitely not in the log because the log is out of reach.
One of which that is not certain never is: it could be in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ray_tracking.http.gatherer import Gatherer
from ray_tracking.http.spooler import Spooler
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.spool import SpoolFull

_SPOOLED = Outcome(Verdict.SPOOLED)
_SPOOLABLE = (Verdict.AWAY,)
#: Of what nobody can send again: a full buffer or log is a case for the spool as well.
_KEPT = (Verdict.AWAY, Verdict.FULL)


class Intake:
    """
    Takes events.

    Args:
        gatherer: To the shards.
        spooler: To this node's disk; None where the spool is off.
    """

    def __init__(self, gatherer: Gatherer, spooler: Spooler | None) -> None:
        self._gatherer = gatherer
        self._spooler = spooler
        self._spooling: set[asyncio.Task[None]] = set()

    def offer(
        self, submission: Submission, tell: Callable[[Outcome], object], *, keep: bool = False
    ) -> None:
        """
        Say what became of one event, as soon as it is known.

        Args:
            submission: As for :meth:`submit`.
            tell: Called once.
            keep: Nobody can send it again, so a full buffer or log is a case for the spool
                as well.
        """

        def told(outcome: Outcome) -> None:
            if self._spooler is None or outcome.verdict not in (_KEPT if keep else _SPOOLABLE):
                tell(outcome)
                return
            task = asyncio.create_task(self._spool_one(submission, outcome, tell))
            self._spooling.add(task)
            task.add_done_callback(self._spooling.discard)

        self._gatherer.offer(submission, told)

    async def submit(self, submissions: Sequence[Submission]) -> list[Outcome]:
        """
        What became of each event, in order.

        Args:
            submissions: New events: none that was ``UNAVAILABLE`` before.
        """
        outcomes = await self._gatherer.submit(submissions)
        places = [i for i, outcome in enumerate(outcomes) if outcome.verdict in _SPOOLABLE]
        await self._spool(submissions, outcomes, places)
        return outcomes

    async def _spool_one(
        self, submission: Submission, outcome: Outcome, tell: Callable[[Outcome], object]
    ) -> None:
        outcomes = [outcome]
        try:
            await self._spool([submission], outcomes, [0])
        finally:  # it is not durable, then, and somebody waits
            tell(outcomes[0])

    async def _spool(
        self, submissions: Sequence[Submission], outcomes: list[Outcome], places: Sequence[int]
    ) -> None:
        """Spool what stands at these places, and say so there."""
        if self._spooler is None or not places:
            return
        with suppress(SpoolFull):
            await self._spooler.append([submissions[place] for place in places])
            for place in places:
                outcomes[place] = _SPOOLED
