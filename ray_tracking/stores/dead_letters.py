"""
The dead letters, for those who look at them and decide: read, discard, read for redrive.

Writing them, and turning one that was sent again into a row, is the writer's
(:mod:`ray_tracking.stores.letters`). A discarded letter stays as a tombstone with its bytes:
a redrive of it may be on its way through the log, and the flush that meets it, or fails on
it once more, must find that it was given up, and not that there never was a letter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from ray_tracking.pipeline.letters import LetterStatus
from ray_tracking.stores.cursor import Cursor, cut_page
from ray_tracking.stores.figures import answered

_LETTER = """
SELECT id, status, event_type, routing_key, campaign_id, failure_reason, sqlstate, attempts,
       first_failed_at, failed_at, log_partition, log_lane, log_epoch, log_seq, log_index,
       flags, digest, occurred_us, encoded_row
FROM dead_letters
"""

_CHOSEN = """
WHERE ($1::text IS NULL OR campaign_id = $1)
  AND ($2::text IS NULL OR sqlstate = $2 OR strpos(lower(failure_reason), lower($2)) > 0)
  AND ($3::text IS NULL OR status = $3)
"""

_NEWEST_FIRST = f"""
{_LETTER} {_CHOSEN}
  AND ($4::timestamptz IS NULL OR (failed_at, id) < ($4, $5::uuid))
ORDER BY failed_at DESC, id DESC LIMIT $6
"""

_OLDEST_FIRST = f"""
{_LETTER} {_CHOSEN}
  AND ($4::timestamptz IS NULL OR (failed_at, id) > ($4, $5::uuid))
  AND failed_at <= $7
ORDER BY failed_at, id LIMIT $6
"""

_FAILED_SINCE = f"{_LETTER} WHERE failed_at >= $1 ORDER BY failed_at, id LIMIT $2"

_DISCARD = "UPDATE dead_letters SET status = 'discarded' WHERE id = $1 AND status = 'dead'"


class LetterFilter(NamedTuple):
    """
    Which letters: of a campaign, for a reason, in a state; each where it is given.

    A reason is a part of the text, in upper or lower case, or an SQLSTATE.
    """

    campaign_id: str | None = None
    reason: str | None = None
    status: LetterStatus | None = None


class DeadLetterStore:
    """
    Looks at dead letters. Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def page(
        self, chosen: LetterFilter, *, limit: int, after: Cursor | None
    ) -> tuple[Sequence[Mapping[str, Any]], Cursor | None]:
        """Some letters, those that failed last first, and where the next page begins."""
        async with answered():
            rows = await self._pool.fetch(
                _NEWEST_FIRST, *chosen, *(after or (None, None)), limit + 1
            )
        return cut_page(rows, limit, "failed_at", "id")

    async def find(self, letter_id: UUID) -> Mapping[str, Any] | None:
        """One letter, or None."""
        async with answered():
            return await self._pool.fetchrow(f"{_LETTER} WHERE id = $1", letter_id)

    async def failed_since(self, moment: datetime, *, limit: int) -> Sequence[Mapping[str, Any]]:
        """Letters that failed at a moment or later, in that order."""
        async with answered():
            return await self._pool.fetch(_FAILED_SINCE, moment, limit)

    async def discard(self, letter_id: UUID) -> str | None:
        """
        Give a letter up, if it is dead.

        Returns:
            Its status from now on, or None when there is no such letter.
        """
        async with answered():
            await self._pool.execute(_DISCARD, letter_id)
            # Asked afterwards: the first question may have waited for a flush that flips it.
            status: str | None = await self._pool.fetchval(
                "SELECT status FROM dead_letters WHERE id = $1", letter_id
            )
        return status

    async def dead(
        self, chosen: LetterFilter, *, chunk: int
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """
        The letters that are dead now, some at a time, in the order in which they failed.

        A letter that fails again meanwhile is not seen twice: it has failed later than now.
        """
        chosen = chosen._replace(status=LetterStatus.DEAD)
        async with answered():
            now: datetime = await self._pool.fetchval("SELECT now()")
        after: Cursor | None = None
        while True:
            async with answered():
                rows = await self._pool.fetch(
                    _OLDEST_FIRST, *chosen, *(after or (None, None)), chunk + 1, now
                )
            page, after = cut_page(rows, chunk, "failed_at", "id")
            if page:
                yield page
            if after is None:
                return
