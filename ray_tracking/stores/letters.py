"""
Dead letters, as a flush writes them: each in the place of a row, in its transaction.

A letter keeps the event exactly as the log has it, so that it can be sent again. What is
written here can never be refused for what it is: a letter that had to become a letter
would stop its stream for good.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from ray_tracking import failpoints
from ray_tracking.events import ACCOUNT_MARK, LANES, TYPES_BY_CODE
from ray_tracking.pipeline.append import Header
from ray_tracking.pipeline.flush import Move, Place, Refusal
from ray_tracking.pipeline.route import REDRIVE, TYPE_MASK, received_ms

_MAX_REASON_CHARS = 1000

# One that was sent again and failed again is the same letter, and so is an event that stood
# in the log twice.
_WRITE = """
INSERT INTO dead_letters AS known
    (id, event_type, routing_key, campaign_id, received_at, failure_reason, sqlstate,
     log_partition, log_lane, log_epoch, log_seq, log_index,
     flags, digest, occurred_us, encoded_row)
VALUES ($1, $2, $3, $4, to_timestamp($5::bigint / 1000.0), $6, $7,
        $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO UPDATE SET
    status = 'dead', attempts = known.attempts + 1, failed_at = now(),
    failure_reason = excluded.failure_reason, sqlstate = excluded.sqlstate,
    log_partition = excluded.log_partition, log_lane = excluded.log_lane,
    log_epoch = excluded.log_epoch, log_seq = excluded.log_seq, log_index = excluded.log_index
"""

_FLIP = """
UPDATE dead_letters SET status = 'redriven' WHERE id = ANY($1) AND status = 'dead' RETURNING id
"""


async def flip(connection: asyncpg.Connection[Any], redriven: Mapping[Place, UUID]) -> set[Place]:
    """
    Turn dead letters that were sent again into rows to be.

    Returns:
        Those that are not to become rows: their letter is redriven or discarded already, or
        stands in this flush once before.
    """
    if not redriven:
        return set()
    hit = {row["id"] for row in await connection.fetch(_FLIP, list(set(redriven.values())))}
    discarded: set[Place] = set()
    for place, letter_id in redriven.items():
        if letter_id in hit:
            hit.discard(letter_id)
        else:
            discarded.add(place)
    return discarded


async def write_letters(
    connection: asyncpg.Connection[Any], moves: list[Move], letters: Mapping[Place, Refusal]
) -> None:
    """Write an event of the moves as a letter, for each that cannot be a row."""
    concerned = {place[:2] for place in letters}
    # With their rows, because asking an entry for them may mean to decompress it.
    entries = {
        (move.where, entry.id): (entry.header, entry.rows)
        for move in moves
        for entry in move.entries
        if (move.where, entry.id) in concerned
    }
    for place, refusal in letters.items():
        header, rows = entries[place[:2]]
        await connection.execute(_WRITE, *_values(header, rows[place.row], place, refusal))
        failpoints.reach("writer.letter")


def _values(header: Header, row: bytes, place: Place, refusal: Refusal) -> tuple[Any, ...]:
    index = place.row
    raw_id = header.event_ids[16 * index : 16 * index + 16]
    flags = array("H", header.flags)[index]
    key = header.keys[array("H", header.key_index)[index]]
    partition, lane = place.where
    return (
        UUID(bytes=raw_id),
        TYPES_BY_CODE[flags & TYPE_MASK].value,
        _text(key),
        None if key.startswith(ACCOUNT_MARK) else _text(key),
        received_ms(raw_id),
        _text(refusal.reason[:_MAX_REASON_CHARS]),
        refusal.sqlstate,
        partition,
        LANES[lane].value,
        *place.entry,
        index,
        flags & ~REDRIVE,
        header.digests[8 * index : 8 * index + 8],
        array("q", header.occurred_us)[index],
        row,
    )


def _text(value: str) -> str:
    """As Postgres takes any text: it has no NUL and no half of a surrogate pair."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
