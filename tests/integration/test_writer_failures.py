"""Whatever Postgres says and wherever the writer dies: nothing is lost, doubled or set aside."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.backlog import Backlog
from ray_tracking.pipeline.gather import Verdict
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import Submission
from ray_tracking.stores.database import partition_name
from ray_tracking.stores.gaps import accept_gap, find_gap
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.positions import PositionReader
from tests.support.parts import Owner
from tests.support.proxy import Fault
from tests.support.stack import NORMAL, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

KILLED = 137
MIB = 1024 * 1024


async def submit(owner: Owner, *submissions: Submission) -> None:
    outcomes = await owner.submit(*submissions)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}


async def has_rows(stack: Stack, number: int) -> bool:
    return await stack.count() == number


async def letter_ids(stack: Stack) -> set[bytes]:
    return {row["id"].bytes for row in await stack.sql("SELECT id FROM dead_letters")}


async def assert_books_agree(stack: Stack) -> None:
    """Every event up to each position is booked once."""
    for row in await stack.sql("SELECT * FROM log_positions WHERE log_lane = 'normal'"):
        booked = sum(row[f"{name}_total"] for name in ("rows", "dead", "discarded", "missing"))
        position = EntryId(row["epoch"], row["seq"])
        entries = await stack.entries(row["log_partition"])
        assert booked == next((e.header.total for e in entries if e.id == position), 0)


# -- a Postgres that says no ---------------------------------------------------------

_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize(
    "sqlstate", ["40001", "40P01", "42501", "53100", "55P03", "57014", "58030", "P0001", "XX000"]
)
async def test_what_is_not_the_rows_fault_is_tried_until_it_succeeds(
    stack: Stack, sqlstate: str
) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    await submit(owner, stack.event())
    await eventually(lambda: has_rows(stack, 1))
    for statement in _REFUSE.format(sqlstate=sqlstate).split("$$;"):
        await stack.sql(statement + ("$$" if "$$" in statement else ""))

    await submit(owner, *[stack.event() for _ in range(3)])
    await eventually(scribe.trouble)
    assert await stack.count() == 1
    await stack.sql("DROP FUNCTION refuse CASCADE")

    await eventually(lambda: has_rows(stack, 4))
    assert scribe.died is None
    assert await letter_ids(stack) == set()


async def test_a_table_that_is_not_what_it_was_stops_nothing_for_good(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    await stack.sql("ALTER TABLE events RENAME COLUMN agent TO somebody")
    await submit(owner, stack.event())
    trouble = await eventually(scribe.trouble)
    assert "agent" in trouble

    await stack.sql("ALTER TABLE events RENAME COLUMN somebody TO agent")

    await eventually(lambda: has_rows(stack, 1))
    assert scribe.died is None


async def test_a_days_table_that_was_dropped_is_made_again(stack: Stack) -> None:
    """The writer has written to it before, and takes it for granted."""
    owner = await stack.shard()
    scribe = await stack.writer()
    first = stack.event()
    await submit(owner, first)
    await eventually(lambda: has_rows(stack, 1))
    (row,) = await stack.rows()
    await stack.sql(f"DROP TABLE {partition_name(row['received_at'].date())}")

    await submit(owner, stack.event(), stack.event())

    await eventually(lambda: has_rows(stack, 2))
    assert scribe.died is None
    assert await letter_ids(stack) == set()


async def test_postgres_is_left_alone_while_it_is_away_and_found_soon_when_it_is_back(
    stack: Stack,
) -> None:
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    await submit(owner, stack.event())
    await eventually(lambda: has_rows(stack, 1))
    assert (await scribe.writer.status())["breaker"]["state"] == "closed"
    proxy.refuse()
    proxy.cut()

    async def is_open() -> bool:
        return bool((await scribe.writer.status())["breaker"]["state"] == "open")

    await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
    await eventually(is_open)
    await asyncio.sleep(3)
    await eventually(is_open)
    began_s = time.monotonic()
    await proxy.accept()

    await eventually(lambda: has_rows(stack, 3))
    assert time.monotonic() - began_s < 5
    await eventually(lambda: _is_closed(stack))


async def _is_closed(stack: Stack) -> bool:
    status = await stack.scribes[-1].writer.status()
    return bool(status["breaker"]["state"] == "closed")


async def test_a_commit_that_nobody_answered_is_booked_once(stack: Stack) -> None:
    """What memory says of the books is what Postgres says."""
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    await submit(owner, stack.event())
    await eventually(lambda: has_rows(stack, 1))
    # No other pump commits anything now.
    await eventually(lambda: stack.sql("SELECT FROM log_positions HAVING min(epoch) > 0"))
    proxy.strike(b"COMMIT", Fault.LOSE_REPLY)
    await submit(owner, stack.event(), stack.event())
    await proxy.struck()

    await eventually(lambda: _has_booked(stack, 3))
    assert await stack.count() == 3
    await assert_books_agree(stack)
    assert scribe.died is None


async def _has_booked(stack: Stack, rows: int) -> bool:
    status = await stack.scribes[-1].writer.status()
    return bool(status["books"]["rows"] == rows)


# -- a writer that dies --------------------------------------------------------------


class Processes:
    """Writers in processes of their own, one after the other."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.points = directory
        self.deaths = 0

    def arm(self, point: str, data: bytes = b"") -> None:
        """Let a process die at a point; each that has the data in its hands, if there is any."""
        (self.points / point).write_bytes(data)

    async def start(self) -> asyncio.subprocess.Process:
        """One that ends when everything is stored, or at a point."""
        config = {
            "name": "writer-0",
            "redis_url": self.stack.redis_url,
            "redis_prefix": self.stack.prefix,
            "database_url": self.stack.database_url,
            "database_schema": self.stack.schema,
            "partitions": list(range(self.stack.partitions)),
            "flush": {"max_events": 1000, "max_age_ms": 50},
            "failpoints_dir": str(self.points),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.writer_process", json.dumps(config)
        )

    async def run_until_all_is_stored(self, at_most: int = 10) -> None:
        """Start the next when one dies."""
        for _ in range(at_most):
            process = await self.start()
            code = await process.wait()
            if code == 0:
                return
            assert code == KILLED
            self.deaths += 1
        raise AssertionError(f"still not stored after {self.deaths} deaths")


@pytest_asyncio.fixture(loop_scope="session")
async def processes(stack: Stack, tmp_path: Path) -> AsyncIterator[Processes]:
    yield Processes(stack, tmp_path)


@pytest.mark.parametrize("point", ["writer.moved", "writer.copied"])
async def test_an_event_that_ends_its_writer_is_a_letter_after_three_deaths(
    stack: Stack, processes: Processes, point: str
) -> None:
    owner = await stack.shard()
    events = [stack.event(campaignId=stack.campaign_in(n % 4)) for n in range(40)]
    events[17] = killer = stack.event(leadId="the killer", campaignId=stack.campaign_in(1))
    events.append(stack.event("EMAIL_BOUNCE"))
    await submit(owner, *events)
    processes.arm(point, b"the killer")

    await processes.run_until_all_is_stored()

    assert processes.deaths <= 3
    assert await letter_ids(stack) == {killer.event_id}
    assert {row["event_id"].bytes for row in await stack.rows()} == {
        event.event_id for event in events if event is not killer
    }
    (letter,) = await stack.sql("SELECT * FROM dead_letters")
    assert "process" in letter["failure_reason"]
    assert letter["sqlstate"] is None
    assert letter["encoded_row"] == killer.row
    await assert_books_agree(stack)


async def test_it_is_found_as_soon_by_a_writer_that_was_at_work(
    stack: Stack, processes: Processes
) -> None:
    """And by the next ones, when there are more such events, in one entry and behind it."""
    owner = await stack.shard()
    await submit(owner, stack.event())
    await processes.run_until_all_is_stored()
    assert await stack.count() == 1
    processes.arm("writer.copied", b"the killer")
    campaign = stack.campaign_in(2)
    killers = [stack.event(leadId=f"the killer {n}", campaignId=campaign) for n in range(3)]
    others = [stack.event(campaignId=campaign) for _ in range(20)]
    await submit(owner, *others[:5], killers[0], *others[5:9], killers[1], *others[9:12])
    await submit(owner, *others[12:], killers[2])

    await processes.run_until_all_is_stored(at_most=12)

    assert processes.deaths <= 3 * len(killers)
    assert await letter_ids(stack) == {killer.event_id for killer in killers}
    assert await stack.count() == 1 + len(others)
    await assert_books_agree(stack)


async def test_a_killer_in_one_lane_harms_nobody_in_another(
    stack: Stack, processes: Processes
) -> None:
    """Both are handled with care at once, in one process: who has done it?"""
    owner = await stack.shard()
    campaign = stack.campaign_in(1)
    opens = [stack.event(campaignId=campaign) for _ in range(200)]
    opens[60] = killer = stack.event(leadId="the killer", campaignId=campaign)
    # So many that they would be in hand still, were they in hand at all.
    bounces = [stack.event("EMAIL_BOUNCE", campaignId=campaign) for _ in range(900)]
    await submit(owner, *bounces, *opens)
    processes.arm("writer.copied", b"the killer")

    await processes.run_until_all_is_stored()

    assert processes.deaths <= 3
    assert await letter_ids(stack) == {killer.event_id}
    assert await stack.count() == len(bounces) + len(opens) - 1


@pytest.mark.parametrize(
    "point",
    [
        "writer.taken_over",
        "writer.read",
        "writer.moved",
        "writer.copied",
        "writer.letter",
        "writer.committed",
    ],
)
async def test_a_writer_that_dies_anywhere_loses_and_doubles_nothing(
    stack: Stack, processes: Processes, point: str
) -> None:
    owner = await stack.shard()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    good = [stack.event(campaignId=stack.campaign_in(n % 4)) for n in range(12)]
    poison = stack.event(leadId="poison", campaignId=stack.campaign_in(3))
    await submit(owner, *good[:6], poison, *good[6:], stack.event("EMAIL_BOUNCE"))
    processes.arm(point)

    await processes.run_until_all_is_stored()

    assert processes.deaths == 1
    assert await stack.count() == len(good) + 1
    assert await letter_ids(stack) == {poison.event_id}
    await assert_books_agree(stack)


async def test_writers_that_were_killed_by_others_cost_nobody_its_row(
    stack: Stack, processes: Processes
) -> None:
    """Killed in the same place again and again, but not by an event: nothing is set aside."""
    owner = await stack.shard()
    events = [stack.event(campaignId=stack.campaign_in(n % 4)) for n in range(20)]
    await submit(owner, *events)
    for point in ["writer.copied", "writer.copied", "writer.taken_over", "writer.read"]:
        processes.arm(point)
        process = await processes.start()
        assert await process.wait() == KILLED

    await processes.run_until_all_is_stored()

    assert processes.deaths == 0
    assert await stack.count() == len(events)
    assert await letter_ids(stack) == set()


# -- books ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_trimmed", [False, True], ids=["known", "unknown"])
async def test_what_was_missing_is_booked_when_the_gap_is_accepted(
    stack: Stack, is_trimmed: bool
) -> None:
    """The books are exact again, also where nobody can say from the log how many there were."""
    owner = await stack.shard()
    campaign = stack.campaign_in(0)
    scribe = await stack.writer()
    await submit(owner, stack.event(campaignId=campaign))
    await eventually(lambda: has_rows(stack, 1))
    await scribe.kill()
    await submit(owner, *[stack.event(campaignId=campaign) for _ in range(3)])
    await submit(owner, *[stack.event(campaignId=campaign) for _ in range(2)])
    first, missing, _ = await stack.batches(0)
    await stack.redis.xdel(stack.stream(0), str(missing.id))
    if is_trimmed:
        await stack.redis.xdel(stack.stream(0), str(first.id))
    log = EventLog(stack.redis_url, stack.prefix)
    gap = await find_gap(log, 0, NORMAL, await stack.stored(0))
    assert gap is not None
    assert gap.events == (None if is_trimmed else 3)

    await accept_gap(stack.database_url, stack.schema, log, gap)
    await log.close()
    scribe = await stack.writer()

    await eventually(lambda: has_rows(stack, 3))
    await assert_books_agree(stack)
    status = await scribe.writer.status()
    assert status["books"] == {"rows": 3, "dead": 0, "discarded": 0, "missing": 3}
    assert status["stored"] == {"high": 0, "normal": 6, "parked": 0}
    positions = PositionReader(stack.database_url, stack.schema, "tests")
    totals = await positions.totals()
    await positions.close()
    assert totals is not None
    assert totals[0, NORMAL] == 6
    assert sum(totals.values()) == 6


async def test_a_successor_knows_the_books(stack: Stack) -> None:
    owner = await stack.shard()
    first = await stack.writer()
    await submit(owner, *[stack.event() for _ in range(5)], stack.event("EMAIL_BOUNCE"))
    await eventually(lambda: has_rows(stack, 6))
    await first.kill()

    await stack.writer()

    await eventually(lambda: _has_booked(stack, 6))
    status = await stack.scribes[-1].writer.status()
    assert status["stored"] == {"high": 1, "normal": 5, "parked": 0}
    assert status["rows"] == 0


# -- reading ahead -------------------------------------------------------------------


async def test_a_backlog_of_large_entries_is_read_as_far_as_there_is_room(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large the entries are, and in however many streams: memory is bounded."""
    owner = await stack.shard(rate=RatePolicy(max_events=10**6))
    text = "x" * 10_000
    events = [
        stack.event(campaignId=stack.campaign_in(n % 4), customData={"text": text})
        for n in range(4000)
    ]
    for at in range(0, len(events), 400):
        await submit(owner, *events[at : at + 400])
    peak_bytes = 0
    add = Backlog.add

    def watched(self: Backlog, *args: Any) -> None:
        nonlocal peak_bytes
        add(self, *args)
        peak_bytes = max(peak_bytes, self.size_bytes)

    monkeypatch.setattr(Backlog, "add", watched)
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url, max_queue_bytes=4 * MIB)
    await eventually(lambda: stack.sql("SELECT 1 FROM log_positions WHERE writer_epoch > 0"))
    proxy.refuse()
    proxy.cut()
    await asyncio.sleep(1)
    await proxy.accept()

    await eventually(lambda: has_rows(stack, len(events)), within_s=60)
    # Of 40 MiB. One stream may fill all that there is; the others still get their shares, and
    # each may reach over its own by an entry.
    assert peak_bytes < 2 * 4 * MIB + 4 * MIB
    assert (await scribe.writer.status())["queued_bytes"] < 10_000
