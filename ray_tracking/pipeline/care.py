"""
Which event ends the process that writes it?

What kills a writer leaves no word behind but this: the position did not move. So a writer
that finds entries behind a position which an earlier one had in hand, says in Postgres what
it is about to try before it tries it, and tries nothing else meanwhile:

1. the first entry, alone and as a whole. Nearly always that is all: the position moves.
2. Where a writer died with an entry alone in its hands, its successor tries the rows of it
   one by one, in transactions that are rolled back.
3. A row that was in hand at both deaths is known from then on, and becomes a dead letter
   when the rest of the entry goes through.

So an event that ends its writer does so at most three times: in the flush where it was met,
with its entry, and alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.flush import Refusal

#: In the place of a row: the whole entry is being tried.
WHOLE_ENTRY = -1
#: Writers that had the entry behind a position in hand: the one that moved the position
#: there, and each that has taken over since.
SUSPICIOUS_ATTEMPTS = 2
ENDS_ITS_WRITER = Refusal("the writer process ended each time when it had this event in hand")


class Standing(NamedTuple):
    """What a writer finds at a position when it takes over."""

    position: EntryId
    attempts: int
    #: A row, or :data:`WHOLE_ENTRY`: what was being tried when the writer died.
    trying: int | None
    #: Rows of the entry behind the position that end their writer.
    deadly: tuple[int, ...]

    @property
    def is_suspicious(self) -> bool:
        """Whether the first entry behind it is to be handled with care."""
        return self.attempts >= SUSPICIOUS_ATTEMPTS

    def rows_to_try(self, rows: int) -> range:
        """
        Which rows of the entry to try alone, before it is tried as a whole.

        Those before one that is known to be deadly have been tried and are not.

        Args:
            rows: How many the entry has.
        """
        if self.deadly:
            return range(max(self.deadly) + 1, rows)
        return range(rows if self.trying == WHOLE_ENTRY else 0)
