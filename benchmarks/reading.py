"""
How fast the reading API answers with ten million rows, and how fast they are counted anew.

The rows are made in Postgres, of a hundred campaigns over eight days; one has a tenth of
all. A replay of each counts them, which is measured on the way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from statistics import quantiles

import aiohttp
import asyncpg
import click

from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.service import Service
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.pipeline.replay import ReplayRequest
from ray_tracking.pipeline.route import partition_of
from ray_tracking.stores.database import create_partition
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.recompute import Recompute

_CAMPAIGNS = 100
_DAYS = 8
_LEADS = 50_000
_ASKED = 300
_PARTITIONS = 16
_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

_MAKE = """
INSERT INTO events (log_partition, log_lane, log_epoch, log_seq, log_index, event_id, event_type,
                    campaign_id, lead_id, email_id, occurred_at, received_at, link_url, device,
                    location, user_agent, ip_address)
SELECT $1, 'normal', 0, n, 0, gen_random_uuid(),
       (ARRAY['EMAIL_SENT', 'EMAIL_SENT', 'EMAIL_DELIVERED', 'EMAIL_DELIVERED', 'EMAIL_OPEN',
              'EMAIL_OPEN', 'EMAIL_OPEN', 'LINK_CLICK', 'LINK_CLICK', 'EMAIL_REPLY'])[1 + n % 10],
       $2, 'lead-' || (n * 7919) % $3, 'mail-' || n % $3, t.at, t.at,
       CASE WHEN n % 10 IN (7, 8) THEN 'https://example.com/' || n % 20 END,
       CASE WHEN n % 10 BETWEEN 4 AND 8 THEN '{"type": "mobile"}'::jsonb END,
       CASE WHEN n % 10 BETWEEN 4 AND 8 THEN '{"country": "DE"}'::jsonb END,
       'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X)', '84.160.12.7'
FROM generate_series($4::bigint, $5) n,
     LATERAL (SELECT $6::timestamptz + (n % 86400) * interval '1 second' AS at) t
"""

_CALLS = {
    "stats": "/campaigns/{}/stats",
    "timeline, by hour": "/campaigns/{}/timeline?bucket=hour",
    "timeline, by minute": "/campaigns/{}/timeline?bucket=minute",
    "links": "/campaigns/{}/links",
    "breakdown": "/campaigns/{}/breakdown",
    "events, a page of 100": "/campaigns/{}/events",
    "events, a page of one type": "/campaigns/{}/events?type=EMAIL_REPLY&limit=20",
    "one lead": "/campaigns/{}/leads/lead-{}",
    "campaigns, a page of 100": "/campaigns",
}

FIGURES = (
    Figure("rows", "rows"),
    Figure("a replay of a tenth of them", "events/s"),
    *(
        Figure(f"{name}: {which}", "ms")
        for name in _CALLS
        for which in ("p50", "p95")
    ),
    Figure("all events of a campaign as NDJSON", "events/s"),
)  # fmt: skip


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    async with Service({"raw_retention_days": 365}) as service:
        database = await asyncpg.connect(service.database_url)
        sizes = _sizes(plan.rows)
        began_s = time.perf_counter()
        await make_rows(database, sizes)
        await database.execute("VACUUM ANALYZE events", timeout=600)
        click.echo(f"reading: rows made in {time.perf_counter() - began_s:.0f} s", err=True)
        took_s = {campaign: await replay(service, campaign) for campaign in sizes}
        await database.execute("VACUUM ANALYZE", timeout=600)
        await database.close()
        click.echo(f"reading: counted after {time.perf_counter() - began_s:.0f} s", err=True)
        figures = {
            "rows": float(sum(sizes.values())),
            "a replay of a tenth of them": sizes["campaign-0"] / took_s["campaign-0"],
        }
        async with aiohttp.ClientSession(service.url) as session:
            for name, path in _CALLS.items():
                figures |= await _ask(session, name, path)
            figures["all events of a campaign as NDJSON"] = await _stream(session)
        return [figures]


def _sizes(rows: int) -> dict[str, int]:
    """How many rows each campaign has."""
    rest = rows * 9 // 10 // (_CAMPAIGNS - 1)
    return {f"campaign-{n}": rest if n else rows // 10 for n in range(_CAMPAIGNS)}


async def make_rows(database: asyncpg.Connection[asyncpg.Record], sizes: dict[str, int]) -> None:
    """Rows that count as if they were written before all that ever comes out of the log."""
    await database.execute("UPDATE rollup_positions SET epoch = 1 WHERE epoch = 0")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=ago) for ago in range(1, _DAYS + 1)]
    for day in days:
        await create_partition(database, day.date())
    first = 1
    for campaign, size in sizes.items():
        for part, day in enumerate(days):
            rows = size * (part + 1) // _DAYS - size * part // _DAYS
            where = partition_of(campaign, _PARTITIONS)
            span = (first, first + rows - 1)
            await database.execute(_MAKE, where, campaign, _LEADS, *span, day, timeout=600)
            first += rows


async def replay(service: Service, campaign: str, number: int = 0) -> float:
    """Replay a campaign, the so-many-th time; how long it took in seconds."""
    queries = await Queries.open(service.database_url, "public")
    request = ReplayRequest(campaign_id=campaign, since=_ALWAYS[0], until=_ALWAYS[1])
    await queries.replays.create(f"bench {campaign} {number}", request, 0)
    await queries.close()
    recompute = Recompute(service.database_url, "public", f"bench {campaign} {number}")
    began_s = time.perf_counter()
    await carry_out(recompute, campaign)
    took_s = time.perf_counter() - began_s
    await recompute.close()
    return took_s


async def _ask(session: aiohttp.ClientSession, name: str, path: str) -> dict[str, float]:
    """One at a time, of campaigns and leads at random, the largest campaign every other time."""
    rng = Random(1)
    took_ms: list[float] = []
    for number in range(_ASKED):
        campaign = f"campaign-{rng.randrange(_CAMPAIGNS) if number % 2 else 0}"
        began_s = time.perf_counter()
        async with session.get(path.format(campaign, rng.randrange(_LEADS))) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"{name}: {answer.status}")
        took_ms.append((time.perf_counter() - began_s) * 1000)
    return {f"{name}: p50": _part(took_ms, 50), f"{name}: p95": _part(took_ms, 95)}


async def _stream(session: aiohttp.ClientSession) -> float:
    events, began_s = 0, time.perf_counter()
    headers = {"Accept": "application/x-ndjson"}
    async with session.get("/campaigns/campaign-1/events", headers=headers) as answer:
        async for chunk in answer.content.iter_any():
            events += chunk.count(b"\n")
    return events / (time.perf_counter() - began_s)


def _part(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1]
