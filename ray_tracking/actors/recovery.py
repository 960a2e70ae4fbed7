"""
The first entries after a takeover, handled with care: :mod:`ray_tracking.pipeline.care` says
how and why.

Nothing else is in this process's hands meanwhile, so what ends it is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from ray_tracking.actors.flusher import Flusher
from ray_tracking.errors import LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import BadEntry, Entry, Kind
from ray_tracking.pipeline.care import ENDS_ITS_WRITER, WHOLE_ENTRY, Standing
from ray_tracking.pipeline.flush import Move, Where, places
from ray_tracking.pipeline.write import Follower, LogGap
from ray_tracking.stores.log import EventLog
from ray_tracking.tasks import wanted

_READ_ENTRIES = 4

log = structlog.get_logger("ray_tracking.writer")


async def recover(
    event_log: EventLog, flusher: Flusher, standings: Mapping[Where, Standing]
) -> list[Move]:
    """
    Store the first entry of each stream that a writer may have died of.

    Returns:
        What was stored.
    """
    moves = []
    for where, standing in standings.items():
        if not wanted():
            break
        if standing.is_suspicious and (move := await _first(event_log, where, standing)):
            await _store(flusher, move, standing)
            moves.append(move)
    return moves


async def _first(event_log: EventLog, where: Where, standing: Standing) -> Move | None:
    """Up to the first events behind the position; None where there are none that follow."""
    follower = Follower(standing.position)
    entries: list[Entry] = []
    try:
        while found := await event_log.read(
            {where: follower.position}, max_entries=_READ_ENTRIES, block_ms=None
        ):
            for entry in found[0][2]:
                follower.accept(entry)
                entries.append(entry)
                if entry.header.kind is Kind.BATCH:
                    return Move(where, standing.position, entry.id, entries)
    except (LogUnavailable, LogGap, BadEntry):
        pass  # whoever reads it next says so
    return None


async def _store(flusher: Flusher, move: Move, standing: Standing) -> None:
    rows = places([move])
    to_try = standing.rows_to_try(len(rows))
    if to_try:
        partition, lane = move.where
        log.warning(
            "trying one by one what a writer died of",
            partition=partition,
            lane=LANES[lane],
            entry=str(move.new),
        )
    for index in to_try:
        await flusher.announce(move.where, index)
        await flusher.probe([move], rows[index : index + 1])
    await flusher.announce(move.where, WHOLE_ENTRY)
    letters = {rows[index]: ENDS_ITS_WRITER for index in standing.deadly if index < len(rows)}
    await flusher.store([move], letters)
