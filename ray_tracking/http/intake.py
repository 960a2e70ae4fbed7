"""
Where every event of a replica goes: to its shard, or else into the spool of this node.

An event is spooled when it is definitely not in the log because the log is out of reach.
One of which that is not certain never is: it could be in both.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray_tracking.http.gatherer import Gatherer
from ray_tracking.http.spooler import Spooler
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.spool import SpoolFull

_SPOOLED = Outcome(Verdict.SPOOLED)


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

    async def submit(
        self, submissions: Sequence[Submission], *, keep: bool = False
    ) -> list[Outcome]:
        """
        What became of each event, in order.

        Args:
            submissions: New events: none that was ``UNAVAILABLE`` before.
            keep: Nobody can send them again, so a full buffer or log is a case for the
                spool as well.
        """
        outcomes = await self._gatherer.submit(submissions)
        if self._spooler is None:
            return outcomes
        wanted = (Verdict.AWAY, Verdict.FULL) if keep else (Verdict.AWAY,)
        places = [i for i, outcome in enumerate(outcomes) if outcome.verdict in wanted]
        if places:
            try:
                await self._spooler.append([submissions[i] for i in places])
            except SpoolFull:
                return outcomes
            for place in places:
                outcomes[place] = _SPOOLED
        return outcomes
