"""
Places in what goes into the log next, and what became of the events that have one.

An event that is admitted gets a place in an append; a duplicate of one that has a place
waits for the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ray_tracking.pipeline.append import EntryId, SpoolChunk
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.rate import RateLimits
from ray_tracking.pipeline.route import SINGLE, Submission
from ray_tracking.pipeline.window import Slots

#: What a refused append means: the log took nothing, and may again in a moment.
RETRY_AFTER_S = 1.0
UNAVAILABLE = Outcome(Verdict.UNAVAILABLE, retry_after_s=RETRY_AFTER_S)
AWAY = Outcome(Verdict.AWAY, retry_after_s=RETRY_AFTER_S)
ACCEPTED = Outcome(Verdict.ACCEPTED)


def unclear(outcome: Outcome) -> Outcome:
    """
    What an answer means for an event that may have arrived before: who says that it is not in
    the log did not look for it there.
    """
    return UNAVAILABLE if outcome.verdict in (Verdict.AWAY, Verdict.FULL) else outcome


#: What was charged, and when.
Charge = tuple[RateLimits, int]


class State(Enum):
    """Where an append stands."""

    OPEN = "open"  # takes events
    SENT = "sent"  # on its way to the log
    UNCLEAR = "unclear"  # the log may have it or not
    DONE = "done"
    REFUSED = "refused"


class Append:
    """Events of one lane that go into the log together, as one entry."""

    __slots__ = (
        "charges", "fields", "id", "lane", "partition", "size_bytes", "slots", "spool", "state",
        "submissions",
    )  # fmt: skip

    def __init__(self, partition: int, lane: int, spool: SpoolChunk | None = None) -> None:
        self.partition = partition
        self.lane = lane
        self.spool = spool
        self.state = State.OPEN
        self.submissions: list[Submission] = []
        #: Where which identity stands among them.
        self.slots = Slots()
        #: To what each was charged and when; None for those past the rate, or over it.
        self.charges: list[Charge | None] = []
        self.size_bytes = 0
        self.id: EntryId | None = None
        self.fields: dict[bytes, bytes] = {}

    def add(self, submission: Submission, charge: Charge | None) -> int:
        """Give it the next place; which one that is."""
        index = len(self.submissions)
        self.slots.add_one(submission.digest, index)
        self.submissions.append(submission)
        self.charges.append(charge)
        self.size_bytes += submission.size_bytes
        return index

    def add_all(self, submissions: Sequence[Submission], charge: Charge) -> None:
        """Give these the next places."""
        self.slots.add([s.digest for s in submissions], len(self.submissions))
        self.submissions += submissions
        self.charges += [charge] * len(submissions)
        self.size_bytes += sum([s.size_bytes for s in submissions])

    def outcome(self, index: int) -> Outcome:
        """What became of a new event, once the append is not open any more."""
        if self.state is State.REFUSED:
            return AWAY
        if self.state is not State.DONE or self.id is None:
            return UNAVAILABLE
        return Outcome(Verdict.ACCEPTED, (self.partition, self.lane, *self.id, index))


@dataclass(slots=True)
class Reservation:
    """A place in an append. A duplicate of the event waits on the same place."""

    append: Append
    index: int
    is_repeat: bool = False

    def outcome(self) -> Outcome:
        """What became of it, once the append is not open any more."""
        first = self.append.outcome(self.index)
        if not self.is_repeat or first.position is None:
            return first
        event_id = self.append.submissions[self.index].event_id
        return Outcome(Verdict.DUPLICATE, first.position, event_id)


class Run(NamedTuple):
    """Places of new events that follow each other in an append, all of a batch or all single."""

    append: Append
    start: int
    stop: int

    def outcomes(self) -> list[Outcome]:
        """What became of them, once the append is not open any more."""
        append, places = self.append, range(self.start, self.stop)
        if append.state is not State.DONE:
            return [append.outcome(self.start)] * len(places)
        if append.submissions[self.start].flags & SINGLE:
            return [append.outcome(index) for index in places]
        # Nobody is told where an event of a batch stands.
        return [ACCEPTED] * len(places)


#: What events were told that were offered: each its outcome or its place, or runs of places.
Offered = Sequence[Outcome | Reservation] | Sequence[Run]


def outcomes_of(offered: Offered) -> list[Outcome]:
    """What became of each, once their appends are not open any more."""
    outcomes: list[Outcome] = []
    for one in offered:
        if isinstance(one, Run):
            outcomes += one.outcomes()
        else:
            outcomes.append(one if isinstance(one, Outcome) else one.outcome())
    return outcomes
