"""
Recounting: are the figures of a campaign what its rows say?

The recount shares no SQL with what counts, and both are read in one snapshot: the rows up to
the positions up to which the figures count. What stood in days that retention has dropped is
in sealed sums, and those stand in for the rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from ray_tracking.pipeline.recount import FIRST, LAST, Check, check, together
from ray_tracking.stores.figures import answered

#: The generation of what stood in days that are dropped.
SEALED = -1
#: Of a campaign whose days may be many.
_WITHIN_S = 3600.0

_SHOWN = "coalesce((SELECT generation FROM rollup_generations WHERE campaign_id = $1), 0)"
#: Figures of time in microseconds, so that all are whole numbers.
_MICROS = "(extract(epoch FROM {}) * 1000000)::bigint"
#: The beginning of a bucket, as the API shows times.
_BEGINNING = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


def _figures(generation: str) -> str:
    """Every figure of campaign $1 that is not zero, as (figure, n)."""
    of_it = f"campaign_id = $1 AND generation = {generation}"
    return f"""
SELECT figure, n::bigint FROM rollup_totals t, LATERAL jsonb_each_text(
    to_jsonb(t) - '{{campaign_id,generation,{FIRST},{LAST}}}'::text[]
    || jsonb_build_object('{FIRST}', {_MICROS.format(f"t.{FIRST}")},
                          '{LAST}', {_MICROS.format(f"t.{LAST}")})) f(figure, n)
WHERE {of_it} AND n <> '0'
UNION ALL
SELECT concat_ws(' ', bucket, {_BEGINNING.format("bucket_start")}, event_type,
                 CASE WHEN is_machine THEN 'machine' END), events
FROM rollup_buckets WHERE {of_it} AND events <> 0
UNION ALL
SELECT concat_ws(' ', kind, name, event_type), events
FROM rollup_groups WHERE {of_it} AND events <> 0
UNION ALL
SELECT concat_ws(' ', f.figure, link_url, link_id), f.n
FROM rollup_links,
     LATERAL (VALUES ('clicks', clicks), ('unique_clicks', unique_clicks)) f(figure, n)
WHERE {of_it} AND f.n <> 0
"""


_RECOUNT = f"""
WITH counted AS MATERIALIZED (
    SELECT e.event_type, e.agent IS DISTINCT FROM 'machine' AS human, e.lead_id, e.bounce_type,
           e.occurred_at, e.link_url, e.details ->> 'linkId' AS link_id,
           coalesce(left(e.device ->> 'type', 64), '') AS device,
           coalesce(left(e.location ->> 'country', 64), '') AS country
    FROM events e JOIN rollup_positions r USING (log_partition, log_lane)
    WHERE e.campaign_id = $1 AND (e.log_epoch, e.log_seq) <= (r.epoch, r.seq)
      AND e.tableoid <> ALL (ARRAY(SELECT table_oid FROM rollup_sealed_tables))),
totals AS (
    SELECT count(*) AS events,
           count(*) FILTER (WHERE human AND event_type = 'EMAIL_SENT') AS sent,
           count(*) FILTER (WHERE human AND event_type = 'EMAIL_DELIVERED') AS delivered,
           count(*) FILTER (WHERE human AND event_type = 'EMAIL_OPEN') AS opens,
           count(*) FILTER (WHERE human AND event_type = 'LINK_CLICK') AS clicks,
           count(*) FILTER (WHERE human AND event_type = 'EMAIL_REPLY') AS replies,
           count(*) FILTER (WHERE NOT human AND event_type = 'EMAIL_OPEN') AS machine_opens,
           count(*) FILTER (WHERE NOT human AND event_type = 'LINK_CLICK') AS machine_clicks,
           count(*) FILTER (WHERE event_type = 'CAMPAIGN_STATUS_CHANGE') AS status_changes,
           count(*) FILTER (WHERE event_type = 'ACCOUNT_HEALTH_UPDATE') AS health_updates,
           {_MICROS.format("min(occurred_at)")} AS {FIRST},
           {_MICROS.format("max(occurred_at)")} AS {LAST}
    FROM counted),
unique_leads(figure, lead_id) AS (
    SELECT CASE event_type WHEN 'EMAIL_OPEN' THEN 'unique_opens'
                           WHEN 'LINK_CLICK' THEN 'unique_clicks' ELSE 'unique_replies' END, lead_id
    FROM counted
    WHERE human AND event_type IN ('EMAIL_OPEN', 'LINK_CLICK', 'EMAIL_REPLY')
    UNION
    SELECT f.figure, lead_id
    FROM rollup_leads JOIN (VALUES ('unique_opens', 1), ('unique_clicks', 2),
                                   ('unique_replies', 4)) f(figure, flag) ON flags & flag <> 0
    WHERE campaign_id = $1 AND generation = {SEALED}),
link_leads AS (
    SELECT link_url, link_id, lead_id FROM counted
    WHERE human AND event_type = 'LINK_CLICK'
    UNION
    SELECT l.link_url, l.link_id, k.lead_id
    FROM rollup_links l JOIN rollup_link_leads k USING (campaign_id, generation, link_key)
    WHERE l.campaign_id = $1 AND l.generation = {SEALED})
SELECT figure, n::bigint FROM totals, LATERAL jsonb_each_text(to_jsonb(totals)) f(figure, n)
WHERE n <> '0'
UNION ALL
SELECT bounce_type, count(*) FROM counted
WHERE human AND event_type = 'EMAIL_BOUNCE' GROUP BY bounce_type
UNION ALL
SELECT figure, count(lead_id) FROM unique_leads GROUP BY figure
UNION ALL
SELECT concat_ws(' ', bucket, {_BEGINNING.format("date_trunc(bucket, occurred_at)")}, event_type,
                 CASE WHEN NOT human THEN 'machine' END), count(*)
FROM counted, (VALUES ('minute'), ('hour'), ('day')) b(bucket)
GROUP BY bucket, date_trunc(bucket, occurred_at), event_type, human
UNION ALL
SELECT concat_ws(' ', 'device', device, event_type), count(*) FROM counted
WHERE human AND event_type IN ('EMAIL_OPEN', 'LINK_CLICK') GROUP BY device, event_type
UNION ALL
SELECT concat_ws(' ', 'country', country, event_type), count(*) FROM counted
WHERE human AND event_type IN ('EMAIL_OPEN', 'LINK_CLICK') GROUP BY country, event_type
UNION ALL
SELECT concat_ws(' ', 'clicks', link_url, link_id), count(*) FROM counted
WHERE human AND event_type = 'LINK_CLICK' GROUP BY link_url, link_id
UNION ALL
SELECT concat_ws(' ', 'unique_clicks', link_url, link_id), count(lead_id) FROM link_leads
GROUP BY link_url, link_id
"""

_CAMPAIGNS = """
SELECT DISTINCT campaign_id FROM events WHERE campaign_id IS NOT NULL
UNION SELECT campaign_id FROM rollup_totals ORDER BY campaign_id
"""


class Verifier:
    """
    Recounts. Every call raises :class:`StoreUnavailable` if Postgres does not answer.

    Args:
        pool: Connections to Postgres.
    """

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def check(self, campaign_id: str) -> Check:
        """Recount all figures of one campaign, while it goes on."""
        async with (
            answered(),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute("SET LOCAL jit = off")
            rows = await connection.fetch(_figures(_SHOWN), campaign_id, timeout=_WITHIN_S)
            sealed = await connection.fetch(_figures(str(SEALED)), campaign_id, timeout=_WITHIN_S)
            counted = await connection.fetch(_RECOUNT, campaign_id, timeout=_WITHIN_S)
        return check(campaign_id, _numbers(rows), together(_numbers(counted), _numbers(sealed)))

    async def check_many(self, campaign_ids: Sequence[str] = ()) -> AsyncIterator[Check]:
        """
        The same for several campaigns, one after the other.

        Args:
            campaign_ids: Which; every one that has rows or figures, if none is given.
        """
        if not campaign_ids:
            async with answered():
                rows = await self._pool.fetch(_CAMPAIGNS, timeout=_WITHIN_S)
            campaign_ids = [row["campaign_id"] for row in rows]
        for campaign_id in campaign_ids:
            yield await self.check(campaign_id)


def _numbers(rows: list[Any]) -> dict[str, int]:
    return {row["figure"]: row["n"] for row in rows}
