"""
What goes into Postgres in one transaction: positions that move, the rows in between, and
the letters that take the place of rows.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import NamedTuple
from uuid import UUID

from ray_tracking.events import LANES
from ray_tracking.pipeline.append import Entry, EntryId
from ray_tracking.pipeline.route import REDRIVE, TRACED, received_ms, received_span_ms
from ray_tracking.pipeline.rows import TRACEPARENT, copy_tuples, decode_row

#: A partition and a lane: one stream.
Where = tuple[int, int]

_DAY_MS = 86_400_000
_UNIX_DAY = date(1970, 1, 1).toordinal()


class Place(NamedTuple):
    """Where one event stands in the log."""

    where: Where
    entry: EntryId
    row: int


class Move(NamedTuple):
    """One stream's step in a flush: its position moves, its entries become rows."""

    where: Where
    old: EntryId
    new: EntryId
    entries: list[Entry]

    @property
    def events(self) -> int:
        return sum(entry.header.count for entry in self.entries)

    @property
    def oldest_ms(self) -> int | None:
        """When the first of its events was received; None where there is none."""
        ids = [entry.header.event_ids for entry in self.entries if entry.header.count]
        return min((received_span_ms(raw)[0] for raw in ids), default=None)


class Refusal(NamedTuple):
    """Why an event cannot be a row."""

    reason: str
    #: What Postgres calls it; None where it did not come to that.
    sqlstate: str | None = None


def places(moves: Iterable[Move]) -> list[Place]:
    """Of every event of a flush, in the order of the log."""
    return [
        Place(move.where, entry.id, index)
        for move in moves
        for entry in move.entries
        for index in range(entry.header.count)
    ]


class Traced(NamedTuple):
    """An event whose request's trace is recorded."""

    place: Place
    traceparent: str
    event_type: str
    received_ms: int


def traced(moves: Iterable[Move]) -> list[Traced]:
    """The traced events of a flush. Only their rows are read."""
    found = []
    for move in moves:
        for entry in move.entries:
            at = [i for i, flags in enumerate(array("H", entry.header.flags)) if flags & TRACED]
            rows = entry.rows if at else []
            for index in at:
                row = decode_row(rows[index])
                parent = json.loads(row["details"])[TRACEPARENT]
                place = Place(move.where, entry.id, index)
                at_ms = received_ms(row["event_id"].bytes)
                found.append(Traced(place, parent, row["event_type"], at_ms))
    return found


def redriven(moves: Iterable[Move]) -> dict[Place, UUID]:
    """The events of a flush that are dead letters sent again, and which letters."""
    return {
        Place(move.where, entry.id, index): UUID(
            bytes=entry.header.event_ids[16 * index : 16 * index + 16]
        )
        for move in moves
        for entry in move.entries
        for index, flags in enumerate(array("H", entry.header.flags))
        if flags & REDRIVE
    }


def copy_parts(
    where: Where, entry: Entry, wanted: Callable[[Place], bool] | None = None
) -> Iterator[tuple[date, bytes]]:
    """
    Parts of a COPY into the table of a day, for each day that an entry holds.

    Args:
        where: The entry's stream.
        entry: Its rows.
        wanted: Which of them; all, if it is not given.
    """
    partition, lane = where
    ids = entry.header.event_ids
    numbered = list(enumerate(entry.rows))
    if wanted is not None:
        numbered = [pair for pair in numbered if wanted(Place(where, entry.id, pair[0]))]
    if not numbered:
        return
    first_day, last_day = (ms // _DAY_MS for ms in received_span_ms(ids))
    by_day = {first_day: numbered}
    if first_day != last_day:
        by_day = {}
        for pair in numbered:
            day = received_ms(ids[16 * pair[0] : 16 * pair[0] + 6]) // _DAY_MS
            by_day.setdefault(day, []).append(pair)
    for day, chosen in by_day.items():
        yield (
            date.fromordinal(_UNIX_DAY + day),
            copy_tuples(partition, LANES[lane], *entry.id, chosen),
        )
