"""
A gap in the log: what stands where an entry is missing, and going on without it.

Nothing is ever skipped by itself. An operator who has seen what is missing, and from
when, may accept it: the position moves to just before the entry that is there.
"""

from __future__ import annotations

from typing import NamedTuple

from ray_tracking.errors import StartError
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import Entry, EntryId, Kind
from ray_tracking.pipeline.write import Follower, LogGap
from ray_tracking.stores.database import connect
from ray_tracking.stores.log import EventLog

_READ_ENTRIES = 256

_PASS = """
UPDATE log_positions
SET epoch = $3, seq = $4, missing_total = $7 - rows_total - dead_total - discarded_total,
    attempts = 1, trying_index = NULL, deadly = '{}', updated_at = now()
WHERE log_partition = $1 AND log_lane = $2 AND (epoch, seq) = ($5, $6)
"""


class Gap(NamedTuple):
    """
    Missing entries of one stream.

    ``after`` is the last entry before them whose events can be rows, ``found`` the
    first behind them.
    ``events`` is how many events are missing, from the running totals, or None where
    the entry before is not in the log any more. ``total_before`` is how many there ever were
    before ``found``, by its own running total.
    """

    partition: int
    lane: int
    after: EntryId
    found: EntryId
    events: int | None
    total_before: int


async def find_gap(log: EventLog, partition: int, lane: int, position: EntryId) -> Gap | None:
    """The first gap of a stream behind a reader's position, if there is one."""
    follower = Follower(position)
    after = position
    total: int | None = 0 if position == EntryId(0, 0) else None
    if (at_position := await log.entry(partition, lane, position)) is not None:
        total = at_position.header.total
    while True:
        found = await log.read(
            {(partition, lane): follower.position}, max_entries=_READ_ENTRIES, block_ms=None
        )
        entries: list[Entry] = found[0][2] if found else []
        for entry in entries:
            try:
                follower.accept(entry)
            except LogGap:
                before = entry.header.total - entry.header.count
                missing = None if total is None else before - total
                return Gap(partition, lane, after, entry.id, missing, before)
            if entry.header.kind is not Kind.MARKER:  # no position ever stands on one
                after = entry.id
            # A marker does not know the total; its chain does.
            total = entry.header.total or total
        if not entries:
            return None


async def accept_gap(url: str, schema: str, log: EventLog, gap: Gap) -> None:
    """
    Go on behind a gap, and remember that it was accepted.

    What is missing is booked: whatever the entry behind the gap counts before itself and
    nobody has booked yet. Below zero, where a log was lost and its owner began to count anew.

    Raises:
        StartError: If what stands before the gap has not become rows yet.
    """
    connection = await connect(url, schema, "ray-tracking accept-gap")
    try:
        async with connection.transaction():
            moved = await connection.execute(
                _PASS,
                gap.partition,
                LANES[gap.lane].value,
                gap.found.epoch,
                gap.found.seq - 1,
                *gap.after,
                gap.total_before,
            )
            if moved != "UPDATE 1":
                raise StartError("not everything before the gap has become rows yet; try again")
            await connection.execute(
                "INSERT INTO accepted_gaps (log_partition, log_lane, after_entry, found_entry, "
                "events_missing) VALUES ($1, $2, $3, $4, $5)",
                gap.partition,
                LANES[gap.lane].value,
                str(gap.after),
                str(gap.found),
                gap.events,
            )
    finally:
        await connection.close()
    await log.forget_gap(gap.partition)
