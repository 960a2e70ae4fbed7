"""Replays, for those who ask for them and look at them; :mod:`.recompute` carries them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.pipeline.replay import MAX_BEGINNINGS, ReplayRequest
from ray_tracking.stores.figures import answered
from ray_tracking.stores.verify import SEALED

_WITHIN_S = 300.0

_ESTIMATE = """
SELECT count(*) FROM events WHERE campaign_id = $1 AND occurred_at >= $2 AND occurred_at < $3
  AND ($4::text[] IS NULL OR event_type = ANY($4))
"""
_GONE = f"""
SELECT coalesce(sum(events), 0)::bigint FROM rollup_buckets
WHERE campaign_id = $1 AND generation = {SEALED} AND bucket = 'minute'
  AND bucket_start > $2::timestamptz - interval '1 minute' AND bucket_start < $3
  AND ($4::text[] IS NULL OR event_type = ANY($4))
"""
_CREATE = """
INSERT INTO replays (id, campaign_id, from_at, to_at, event_types, batch_size,
                     reprocess_analytics, broadcast_updates, estimated_events)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING
"""
_PAGE = """
SELECT * FROM replays WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
ORDER BY created_at DESC, id DESC LIMIT $3
"""
_END = """
UPDATE replays SET status = $2, error = $3, finished_at = now()
WHERE id = $1 AND status IN ('PENDING', 'RUNNING') RETURNING id
"""
# Whoever asks first for those that nobody works on gets them.
_ORPHANS = """
UPDATE replays SET heard_at = now()
WHERE status IN ('PENDING', 'RUNNING') AND heard_at < now() - make_interval(secs => $1)
RETURNING *
"""


class Estimate(NamedTuple):
    """What a replay would read."""

    events: int
    #: About as many stood in days that retention has dropped; they live on in sealed sums.
    gone: int


class ReplayStore:
    """
    Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def estimate(self, request: ReplayRequest) -> Estimate:
        """How many events it is about."""
        of_it = (request.campaign_id, request.since, request.until, request.event_types)
        async with answered():
            events = await self._pool.fetchval(_ESTIMATE, *of_it, timeout=_WITHIN_S)
            gone = await self._pool.fetchval(_GONE, *of_it)
        return Estimate(events, gone)

    async def create(self, replay_id: str, request: ReplayRequest, estimated: int) -> bool:
        """Remember a replay; False where there is one of that id already."""
        async with answered():
            done: str = await self._pool.execute(
                _CREATE,
                replay_id,
                request.campaign_id,
                request.since,
                request.until,
                request.event_types,
                request.batch_size,
                request.reprocess_analytics,
                request.broadcast_updates,
                estimated,
            )
        return done == "INSERT 0 1"

    async def find(self, replay_id: str) -> Mapping[str, Any] | None:
        """One replay, or None."""
        async with answered():
            return await self._pool.fetchrow("SELECT * FROM replays WHERE id = $1", replay_id)

    async def page(self, *, limit: int, after: tuple[Any, str] | None) -> Sequence[Any]:
        """Some replays, the newest first."""
        async with answered():
            return await self._pool.fetch(_PAGE, *(after or (None, None)), limit)

    async def end(self, replay_id: str, status: str, error: str | None = None) -> bool:
        """End one that has not ended; whoever works on it stops at its next step."""
        async with answered():
            return await self._pool.fetchval(_END, replay_id, status, error) is not None

    async def orphans(self, silent_s: float) -> list[Mapping[str, Any]]:
        """Those that nobody was heard to work on for so long, each once in that time."""
        async with answered():
            found = await self._pool.fetch(_ORPHANS, silent_s)
        alive = []
        for replay in found:
            if replay["runner_epoch"] < MAX_BEGINNINGS:
                alive.append(replay)
            else:
                why = f"it was begun {MAX_BEGINNINGS} times and never came to an end"
                await self.end(replay["id"], "FAILED", why)
        return alive
