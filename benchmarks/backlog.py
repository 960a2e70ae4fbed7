"""
Whether it stays as fast as on its first day: with many rows, and with many events that wait.

The rows are made by Postgres itself, in today's table, of the campaigns that the load is of,
and vacuumed before anything is measured. The backlog comes about as in
:mod:`benchmarks.priority`: a transaction of ours holds the positions while it is sent. What
an event costs then is all that its way takes, from the request to the row. Ray's own
processes are not in it: what they take goes by the minute, not by the event.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from statistics import median

import asyncpg
import click

from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.bodies import CAMPAIGNS
from benchmarks.lab import Figure, Lab, all_accepted
from benchmarks.plan import Plan
from benchmarks.priority import held
from benchmarks.processes import cpu_s
from benchmarks.service import Service
from ray_tracking.stores.database import partition_name

_WAITS = "a backlog"
_FEW, _MANY = "a tenth of the rows", "all rows"
_PER_INSERT = 500_000
#: The longest time between two old events.
_APART_US = 5_000
#: Events from $1 up to $2, each $3 microseconds, the last one now; in the log's positions
#: they have an epoch that no owner had.
_FILL = f"""
INSERT INTO {{table}} (
    log_partition, log_lane, log_epoch, log_seq, log_index, event_id, event_type, campaign_id,
    lead_id, email_id, account_id, client_event_id, occurred_at, received_at, ip_address,
    user_agent)
SELECT n % 16, 'normal', 1, n / 16, 0, gen_random_uuid(), 'EMAIL_OPEN',
       'bench-campaign-' || lpad((n % {CAMPAIGNS})::text, 3, '0'),
       'old-' || lpad(n::text, 10, '0'), 'mail-' || lpad(n::text, 10, '0'),
       'outreach-a@example.com', 'bench-' || lpad(n::text, 10, '0'), at, at, '84.160.12.7',
       'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 '
       '(KHTML, like Gecko) Mobile/15E148'
FROM (SELECT n, now() - (($2 - n) * $3 || ' us')::interval AS at
      FROM generate_series($1::bigint, $2 - 1) n) filled
"""

FIGURES = (
    Figure("empty: processors", "us/event"),
    Figure("empty: rows, until all are there", "rows/s"),
    *(
        figure
        for what in (_FEW, _MANY)
        for figure in (
            Figure(f"{what}: there before", "rows"),
            Figure(f"{what}: processors", "us/event", ("empty: processors",)),
            Figure(
                f"{what}: rows, until all are there",
                "rows/s",
                ("empty: rows, until all are there",),
            ),
        )
    ),
    Figure(f"{_WAITS}: waiting at most", "events"),
    Figure(f"{_WAITS}: processors", "us/event", ("empty: processors",)),
    Figure(f"{_WAITS}: acknowledged", "events/s"),
    Figure(f"{_WAITS}: drained", "rows/s", ("empty: rows, until all are there",)),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure on a service of its own; a figure is the median of as many loads as runs."""
    async with Service() as service:
        database = await asyncpg.connect(service.database_url)
        lab = Lab(service, 0, database, plan)
        await _load(lab)  # to warm up
        found = {f"empty: {what}": value for what, value in (await _loads(lab)).items()}
        click.echo(f"a backlog of {plan.backlog:,} events", err=True)
        found |= await _backlog(lab)
        await database.execute(f"TRUNCATE {_today()}")
        filled = 0
        for name, rows in ((_FEW, plan.rows // 10), (_MANY, plan.rows)):
            began_s = time.perf_counter()
            await _fill(lab, filled, rows)
            took_s = time.perf_counter() - began_s
            click.echo(f"{rows:,} rows are there, after {took_s:.0f} s", err=True)
            filled = rows
            found[f"{name}: there before"] = await database.fetchval("SELECT count(*) FROM events")
            found |= {f"{name}: {what}": value for what, value in (await _loads(lab)).items()}
        await database.close()
    return [found]


async def _loads(lab: Lab) -> dict[str, float]:
    spent, rates = zip(*[await _load(lab) for _ in range(lab.plan.runs)], strict=True)
    return {"processors": median(spent), "rows, until all are there": median(rates)}


async def _load(lab: Lab) -> tuple[float, float]:
    """Microseconds of all processes for each event, and rows per second."""
    before_s = _cpu_s(lab)
    result, rows_per_s = await lab.send_and_drain(
        "/events/batch", batch=SIZE, events=EVENTS, connections=CONNECTIONS
    )
    spent_s = _cpu_s(lab) - before_s
    all_accepted(result, "backlog")
    return spent_s * 1e6 / EVENTS, rows_per_s


def _cpu_s(lab: Lab) -> float:
    return sum(spent_s for kind, spent_s in cpu_s(lab.service).items() if kind != "Ray")


async def _backlog(lab: Lab) -> dict[str, float]:
    events = lab.plan.backlog // SIZE * SIZE
    before, before_s = await lab.rows(), _cpu_s(lab)
    async with held(lab):
        result = await lab.send(
            lab.service.port, "/events/batch", batch=SIZE, events=events, connections=CONNECTIONS
        )
        all_accepted(result, "backlog")
        waiting = before + events - await lab.rows()
    released_s = time.perf_counter()
    await lab.until_rows(before + events)
    took_s = time.perf_counter() - released_s
    spent_s = _cpu_s(lab) - before_s
    return {
        f"{_WAITS}: waiting at most": waiting,
        f"{_WAITS}: processors": spent_s * 1e6 / events,
        f"{_WAITS}: acknowledged": events / result.seconds,
        f"{_WAITS}: drained": waiting / took_s,
    }


async def _fill(lab: Lab, first: int, end: int) -> None:
    """Old rows, from one number up to another."""
    now = datetime.now(UTC)
    today_us = (now - now.replace(hour=0, minute=0, second=0)) / timedelta(microseconds=1)
    apart_us = min(_APART_US, int(today_us / (end + 1)))
    for at in range(first, end, _PER_INSERT):
        upto = min(end, at + _PER_INSERT)
        await lab.database.execute(_FILL.format(table=_today()), at, upto, apart_us)
    await lab.database.execute(f"VACUUM (ANALYZE) {_today()}")
    await lab.database.execute("CHECKPOINT")


def _today() -> str:
    return partition_name(datetime.now(UTC).date())
