"""
The books: what became of the events of a stream, up to a position.

``rows + dead + discarded + missing`` is the running total in the header of the entry at
the position. Each flush moves both in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Books(NamedTuple):
    """Of one stream, or of several together."""

    #: Became rows, also where retention has dropped them since.
    rows: int = 0
    #: Became dead letters, each time they did.
    dead: int = 0
    #: Letters sent again that were no letters any more, and events of leads that were erased.
    discarded: int = 0
    #: Not in the log; an operator has gone on without them.
    missing: int = 0

    @property
    def total(self) -> int:
        """All events that ever stood in the log up to here."""
        return sum(self)

    @classmethod
    def added(cls, books: Iterable[Books]) -> Books:
        """Those of several streams as one."""
        return cls(*map(sum, zip(*books, strict=True)))
