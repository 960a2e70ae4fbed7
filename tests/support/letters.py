"""Dead letters as a writer leaves them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ray_tracking.events import LANES, TYPES_BY_CODE
from ray_tracking.pipeline.append import remembered
from ray_tracking.pipeline.route import TYPE_MASK, Submission, received_ms
from tests.support.stack import Stack

REASON = 'new row for relation "events" violates check constraint "no_opens"'

_PUT = """
INSERT INTO dead_letters (
    id, status, event_type, routing_key, campaign_id, received_at, failure_reason, sqlstate,
    attempts, first_failed_at, failed_at, log_partition, log_lane, log_epoch, log_seq, log_index,
    flags, digest, occurred_us, encoded_row)
VALUES ($1, $2, $3, $4, $5, to_timestamp($6), $7, $8, $9, coalesce($10, now()),
        coalesce($10, now()), $11, $12, 1795459200, 1842, 7, $13, $14, $15, $16)
"""


async def put_letter(
    stack: Stack,
    submission: Submission | None = None,
    *,
    status: str = "dead",
    reason: str = REASON,
    sqlstate: str | None = "23514",
    failed_at: datetime | None = None,
    attempts: int = 1,
    lane: int | None = None,
    row: bytes | None = None,
    **event: Any,
) -> UUID:
    """
    Put a letter into Postgres, and return its id.

    Args:
        stack: Where.
        submission: The event; else one is made of ``event``.
        status: What has become of it.
        reason: Why it is dead.
        sqlstate: What Postgres calls that.
        failed_at: When; now, if not given.
        attempts: How often.
        lane: Where it stood in the log; where it was sent to, if not given.
        row: Instead of its own.
        event: Type and fields, as for :meth:`Stack.event`.
    """
    one = submission or stack.event(**event)
    letter_id = UUID(bytes=one.event_id)
    await stack.sql(
        _PUT,
        letter_id,
        status,
        TYPES_BY_CODE[one.flags & TYPE_MASK],
        one.key,
        None if one.key.startswith("\x1f") else one.key,
        received_ms(one.event_id) / 1000,
        reason,
        sqlstate,
        attempts,
        failed_at,
        one.partition,
        LANES[one.lane if lane is None else lane],
        one.flags,
        one.digest,
        one.occurred_us,
        one.row if row is None else row,
    )
    return letter_id


async def logged(stack: Stack) -> list[Submission]:
    """Every event in the log with its row, partition by partition, lane by lane."""
    found = []
    for partition in range(stack.partitions):
        for lane in range(len(LANES)):
            for entry in await stack.batches(partition, lane):
                heads = remembered(entry.header, partition, lane)
                found += [
                    msgspec.structs.replace(head, row=row)
                    for head, row in zip(heads, entry.rows, strict=True)
                ]
    return found


async def status_of(stack: Stack, letter_id: UUID) -> str:
    """What has become of a letter."""
    (row,) = await stack.sql("SELECT status FROM dead_letters WHERE id = $1", letter_id)
    status: str = row["status"]
    return status
