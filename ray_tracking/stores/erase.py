"""
Everything of one lead: to be handed out, or erased.

    tombstone   what is still on its way is discarded from now on (see stores.flushes)
    wait        until no flush goes on that began before
    erase       rows, figures, and what made the lead a unique one, in one transaction

Counts of days that retention has dropped stay: they are sums, and say nothing of a lead. That
it was one of the unique leads of those days is erased.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from ray_tracking.pipeline.rows import decode_row
from ray_tracking.stores.figures import answered
from ray_tracking.stores.folding import SOURCE_COLUMNS, unfold
from ray_tracking.stores.recompute import RESTART_REPLAYS
from ray_tracking.stores.verify import SEALED

#: For looking through all dead letters, and a very busy lead.
_WITHIN_S = 300.0
#: So long after it was said, every replica refuses the old tokens.
GRACE_S = 10

LEAD_KEY = "sha256(convert_to({}, 'UTF8'))"

_TOMBSTONE = f"""
INSERT INTO erased_leads VALUES ({LEAD_KEY.format("$1::text")}, now(),
                                 now() + make_interval(secs => {GRACE_S}))
ON CONFLICT (lead_key) DO UPDATE SET erased_at = excluded.erased_at, until = excluded.until
RETURNING erased_at
"""
# A flush moves its positions before it asks for tombstones, and holds them until it has ended.
_WAIT_FOR_FLUSHES = "SELECT 1 FROM log_positions ORDER BY log_partition, log_lane FOR UPDATE"
_HOLD_ROLLERS = "SELECT 1 FROM rollup_positions ORDER BY log_partition, log_lane FOR UPDATE"
_CAMPAIGNS = """
SELECT DISTINCT campaign_id FROM events WHERE lead_id = $1 AND campaign_id IS NOT NULL
UNION SELECT campaign_id FROM rollup_leads WHERE lead_id = $1
"""
_SHOWN = """
coalesce((SELECT generation FROM rollup_generations g WHERE g.campaign_id = {}.campaign_id), 0)
"""
_COUNTED = f"""
SELECT {SOURCE_COLUMNS}, {_SHOWN.format("e")} AS generation
FROM events e JOIN rollup_positions r USING (log_partition, log_lane)
WHERE e.lead_id = $1 AND e.campaign_id IS NOT NULL
  AND (e.log_epoch, e.log_seq) <= (r.epoch, r.seq)
  AND e.tableoid <> ALL (ARRAY(SELECT table_oid FROM rollup_sealed_tables))
"""
_UNFOLD = unfold(_COUNTED)
_UNIQUES = """
UPDATE rollup_totals t SET
    unique_opens = t.unique_opens - (l.flags & 1),
    unique_clicks = t.unique_clicks - (l.flags & 2) / 2,
    unique_replies = t.unique_replies - (l.flags & 4) / 4
FROM rollup_leads l
WHERE l.lead_id = $1 AND l.campaign_id = ANY($2)
  AND t.campaign_id = l.campaign_id AND t.generation = l.generation
"""
_LINK_UNIQUES = """
UPDATE rollup_links t SET unique_clicks = t.unique_clicks - 1
FROM rollup_link_leads l
WHERE l.lead_id = $1 AND l.campaign_id = ANY($2) AND t.campaign_id = l.campaign_id
  AND t.generation = l.generation AND t.link_key = l.link_key
"""
_FORGET = "DELETE FROM {} WHERE lead_id = $1 AND campaign_id = ANY($2)"
_TIMES = f"""
UPDATE rollup_totals t SET first_event_at = least(n.first_at, s.first_event_at),
                           last_event_at = greatest(n.last_at, s.last_event_at)
FROM unnest($1::text[]) c(campaign_id)
     CROSS JOIN LATERAL (
         SELECT min(occurred_at) AS first_at, max(occurred_at) AS last_at
         FROM events e JOIN rollup_positions r USING (log_partition, log_lane)
         WHERE e.campaign_id = c.campaign_id AND (e.log_epoch, e.log_seq) <= (r.epoch, r.seq)) n
     LEFT JOIN rollup_totals s ON s.campaign_id = c.campaign_id AND s.generation = {SEALED}
WHERE t.campaign_id = c.campaign_id AND t.generation = {_SHOWN.format("t")}
"""
_CORRECTED = """
INSERT INTO rollup_generations (campaign_id, generation, corrected_at)
SELECT campaign_id, 0, now() FROM unnest($1::text[]) c(campaign_id)
ON CONFLICT (campaign_id) DO UPDATE SET corrected_at = excluded.corrected_at
"""
_ROWS = """
SELECT event_id, event_type, campaign_id, lead_id, email_id, account_id, client_event_id,
       occurred_at, received_at, link_url, bounce_type, ip_address, user_agent,
       device, location, custom, details
FROM events WHERE lead_id = $1 ORDER BY received_at, event_id
"""


class Receipt(NamedTuple):
    """What was erased where."""

    erased_at: datetime
    events: int
    dead_letters: int
    campaigns: list[str]


class Belongings(NamedTuple):
    """What there is of a lead."""

    rows: Sequence[Any]
    letters: Sequence[Any]
    uniques: Sequence[Any]


class Leads:
    """
    Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def export(self, lead_id: str) -> Belongings:
        """Everything that is stored of a lead."""
        async with answered(), self._pool.acquire() as connection:
            rows = await connection.fetch(_ROWS, lead_id, timeout=_WITHIN_S)
            uniques = await connection.fetch(
                "SELECT l.campaign_id, l.flags FROM rollup_leads l "
                f"WHERE lead_id = $1 AND generation = {_SHOWN.format('l')} ORDER BY 1",
                lead_id,
                timeout=_WITHIN_S,
            )
            return Belongings(rows, await _letters(connection, lead_id), uniques)

    async def erase(self, lead_id: str) -> Receipt:
        """
        Erase a lead. May be repeated; what comes of it later is a new lead.

        If it fails on the way, the tombstone is there, and the rest is done by repeating it.
        """
        async with answered(), self._pool.acquire() as connection:
            erased_at = await connection.fetchval(_TOMBSTONE, lead_id)
            async with connection.transaction():
                await connection.execute(_WAIT_FOR_FLUSHES)
            letters = await _letters(connection, lead_id)
            found = await connection.fetch(_CAMPAIGNS, lead_id, timeout=_WITHIN_S)
            campaigns = sorted(row["campaign_id"] for row in found)
            async with connection.transaction():
                await connection.execute("SET LOCAL jit = off")
                await connection.execute(_HOLD_ROLLERS)
                await connection.execute(RESTART_REPLAYS)
                await connection.fetchval(_UNFOLD, lead_id, timeout=_WITHIN_S)
                await connection.execute(_UNIQUES, lead_id, campaigns)
                await connection.execute(_LINK_UNIQUES, lead_id, campaigns)
                for table in ("rollup_leads", "rollup_link_leads"):
                    await connection.execute(_FORGET.format(table), lead_id, campaigns)
                gone = await connection.execute("DELETE FROM events WHERE lead_id = $1", lead_id)
                await connection.execute(_TIMES, campaigns, timeout=_WITHIN_S)
                await connection.execute(_CORRECTED, campaigns)
                await connection.execute(
                    "DELETE FROM dead_letters WHERE id = ANY($1)", [row["id"] for row in letters]
                )
        return Receipt(erased_at, int(gone.split()[1]), len(letters), campaigns)

    async def tombstones(self, since: datetime) -> dict[bytes, datetime]:
        """When leads were erased since then, by the hash of their id."""
        async with answered():
            rows = await self._pool.fetch(
                "SELECT lead_key, erased_at FROM erased_leads WHERE until >= $1", since
            )
        return {row["lead_key"]: row["erased_at"] for row in rows}


async def _letters(connection: Any, lead_id: str) -> list[Any]:
    """Its dead letters: the lead stands in what could not be a row."""
    needle = lead_id.encode()
    rows = await connection.fetch(
        "SELECT * FROM dead_letters WHERE position($1::bytea IN encoded_row) > 0",
        needle,
        timeout=_WITHIN_S,
    )
    return [row for row in rows if _lead_of(row["encoded_row"]) == lead_id]


def _lead_of(encoded_row: bytes) -> str | None:
    try:
        lead: str | None = decode_row(encoded_row)["lead_id"]
    except (ValueError, IndexError, KeyError, OverflowError, ArithmeticError):
        return None
    return lead
