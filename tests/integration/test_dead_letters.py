"""An event that Postgres refuses becomes a dead letter: that one, no other, and it is kept."""

from __future__ import annotations

import struct
from collections import Counter
from datetime import UTC, datetime
from math import log2
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ray_tracking.events import LANES
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.flush import Move, Place, Refusal
from ray_tracking.pipeline.gather import Verdict
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import REDRIVE, Submission
from ray_tracking.pipeline.rows import decode_row
from ray_tracking.stores.rows import RowWriter
from tests.support.parts import Owner, Scribe
from tests.support.stack import NORMAL, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

CUSTOM = {"plan": "gold"}
_POSTGRES_EPOCH_US = 946_684_800_000_000


def broken(stack: Stack, how: str, **fields: Any) -> Submission:
    """An event whose row Postgres refuses."""
    event = stack.event(customData=CUSTOM, **fields)
    row = event.row
    match how:
        case "JSON that is none":
            row = row.replace(b'{"plan":"gold"}', b'{"plan":"gold"x')
        case "JSON with a NUL":
            row = row.replace(b'{"plan":"gold"}', b'["\\u0000     "]')
        case "a short id":
            row = struct.pack(">i", 15) + row[4:19] + row[20:]
        case "a long id":
            row = struct.pack(">i", 17) + b"x" + row[4:]
        case "text that is not UTF-8":
            row = row.replace(b"EMAIL_OPEN", b"EMAIL_\xff\xfe\xfaN")
        case "a NUL":
            row = row.replace(b"EMAIL_OPEN", b"EMAIL_OPE\0")
        case "bytes that are no row":
            row = b"garbage \0 garbage \xff"
        case "a day that is not its own":
            occurred = struct.pack(">iq", 8, event.occurred_us - _POSTGRES_EPOCH_US)
            at = row.index(occurred) + len(occurred)
            row = row[:at] + struct.pack(">iq", 8, 0) + row[at + 12 :]
    assert row != event.row
    return msgspec.structs.replace(event, row=row)


BROKEN = {
    "JSON that is none": "22P02",
    "JSON with a NUL": "22P05",
    "a short id": "08P01",
    "a long id": "22P03",
    "text that is not UTF-8": "22021",
    "a NUL": "22021",
    "bytes that are no row": "54000",
    "a day that is not its own": "23514",
}


async def submit(owner: Owner, *submissions: Submission) -> None:
    outcomes = await owner.submit(*submissions)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}


async def letters(stack: Stack) -> list[Any]:
    return await stack.sql("SELECT * FROM dead_letters ORDER BY id")


async def is_stored(stack: Stack, rows: int, dead: int) -> bool:
    """As many rows and letters as these?"""
    return (await stack.count(), len(await letters(stack))) == (rows, dead)


async def books(stack: Stack) -> Counter[str]:
    """Those of all streams, after checking that each agrees with the log."""
    found: Counter[str] = Counter()
    for row in await stack.sql("SELECT * FROM log_positions"):
        lane = [str(lane) for lane in LANES].index(row["log_lane"])
        figures = {name: row[f"{name}_total"] for name in ("rows", "dead", "discarded", "missing")}
        position = EntryId(row["epoch"], row["seq"])
        entries = await stack.entries(row["log_partition"], lane)
        total = next((e.header.total for e in entries if e.id == position), 0)
        assert sum(figures.values()) == total, (row["log_partition"], lane, figures)
        found.update(figures)
    return +found


def count_transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on, the transactions of flushes that hold events."""
    asked: list[str] = []
    for name in ("flush", "probe"):
        original = getattr(RowWriter, name)

        def counted(*args: Any, name: str = name, original: Any = original) -> Any:
            if any(move.events for move in args[1]):
                asked.append(name)
            return original(*args)

        monkeypatch.setattr(RowWriter, name, counted)
    return asked


async def redrive(owner: Owner, *submissions: Submission) -> None:
    """Send letters again, as ``POST /dead-letters/redrive`` does."""
    again = [msgspec.structs.replace(s, flags=s.flags | REDRIVE) for s in submissions]
    await submit(owner, *again)


# -- finding it ----------------------------------------------------------------------


@pytest.mark.parametrize(("how", "sqlstate"), BROKEN.items())
async def test_a_row_that_postgres_refuses_is_a_letter_and_its_neighbours_are_rows(
    stack: Stack, how: str, sqlstate: str
) -> None:
    owner = await stack.shard()
    campaign = stack.campaign_in(2)
    good = [stack.event(campaignId=campaign) for _ in range(9)]
    bad = broken(stack, how, campaignId=campaign)
    await submit(owner, *good[:4], bad, *good[4:])

    scribe = await stack.writer()
    await eventually(lambda: is_stored(stack, 9, 1))

    (letter,) = await letters(stack)
    (entry,) = await stack.batches(2)
    assert letter["id"] == UUID(bytes=bad.event_id)
    assert letter["status"] == "dead"
    assert letter["sqlstate"] == sqlstate
    assert letter["failure_reason"]
    assert letter["attempts"] == 1
    assert letter["event_type"] == "EMAIL_OPEN"
    assert (letter["routing_key"], letter["campaign_id"]) == (campaign, campaign)
    received_ms = int.from_bytes(bad.event_id[:6], "big")
    assert letter["received_at"] == datetime.fromtimestamp(received_ms / 1000, UTC)
    assert (letter["log_partition"], letter["log_lane"]) == (2, "normal")
    assert EntryId(letter["log_epoch"], letter["log_seq"]) == entry.id
    assert letter["log_index"] == 4
    assert (letter["flags"], letter["digest"]) == (bad.flags, bad.digest)
    assert letter["occurred_us"] == bad.occurred_us
    assert letter["encoded_row"] == bad.row
    assert {row["event_id"].bytes for row in await stack.rows()} == {s.event_id for s in good}
    assert await books(stack) == {"rows": 9, "dead": 1}
    assert scribe.died is None
    assert await scribe.trouble() is None


async def test_one_row_among_ten_thousand_is_found_in_few_transactions(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await stack.shard(rate=RatePolicy(max_events=10**6))
    campaign = stack.campaign_in(0)
    events = [stack.event(campaignId=campaign) for _ in range(9_999)]
    events.insert(6_789, broken(stack, "JSON that is none", campaignId=campaign))
    for at in range(0, 10_000, 1000):
        await submit(owner, *events[at : at + 1000])
    asked = count_transactions(monkeypatch)

    await stack.writer(max_events=10_000, max_age_ms=2000)
    await eventually(lambda: is_stored(stack, 9_999, 1), within_s=60)

    (letter,) = await letters(stack)
    assert letter["id"].bytes == events[6_789].event_id
    assert Counter(asked)["flush"] == 2, "the one that failed, and the one without it"
    assert len(asked) - 1 <= 2 * log2(10_000) + 1
    assert await books(stack) == {"rows": 9_999, "dead": 1}


async def test_several_rows_of_one_flush_are_found(stack: Stack) -> None:
    """Of several streams, in one transaction with everything else."""
    owner = await stack.shard()
    events = [stack.event(campaignId=stack.campaign_in(n % 4)) for n in range(60)]
    poison = {3, 4, 30, 59}
    for number in poison:
        events[number] = broken(stack, "a short id", campaignId=stack.campaign_in(number % 4))
    await submit(owner, *events)

    await stack.writer(max_age_ms=500)
    await eventually(lambda: is_stored(stack, 56, 4))

    assert {letter["id"].bytes for letter in await letters(stack)} == {
        events[number].event_id for number in poison
    }
    assert await books(stack) == {"rows": 56, "dead": 4}


async def test_a_flush_of_nothing_but_broken_rows_is_all_letters(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.writer()
    await submit(owner, *[broken(stack, "a NUL") for _ in range(5)])
    await submit(owner, broken(stack, "a NUL"))

    await eventually(lambda: is_stored(stack, 0, 6))
    assert await books(stack) == {"dead": 6}


async def test_a_constraint_that_an_operator_adds_makes_letters_of_what_it_forbids(
    stack: Stack,
) -> None:
    owner = await stack.shard()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    await stack.writer()
    good = [stack.event() for _ in range(3)]
    await submit(owner, good[0], stack.event(leadId="poison"), *good[1:])

    await eventually(lambda: is_stored(stack, 3, 1))
    (letter,) = await letters(stack)
    assert "no_poison" in letter["failure_reason"]
    assert "poison'" not in letter["failure_reason"], "no values of the row"
    assert letter["sqlstate"] == "23514"
    assert decode_row(letter["encoded_row"])["lead_id"] == "poison"


async def test_rows_that_fail_only_together_are_never_letters(stack: Stack) -> None:
    """
    Each goes through alone, so neither is at fault: the flush waits, and says why, until
    somebody has mended it.
    """
    owner = await stack.shard()
    await stack.sql("CREATE UNIQUE INDEX one_lead ON events (lead_id, received_at)")
    same = 1_700_000_000_000
    pair = [stack.event(leadId="same", received_ms=same) for _ in range(2)]
    await submit(owner, *pair, stack.event(campaignId=stack.campaign_in(3)))

    scribe = await stack.writer()
    trouble = await eventually(scribe.trouble)

    assert "lead_id_received_at" in trouble
    assert scribe.died is None
    assert await letters(stack) == []
    await stack.sql("DROP INDEX one_lead")
    await eventually(lambda: is_stored(stack, 3, 0))
    await eventually(lambda: _is_content(scribe))


async def _is_content(scribe: Scribe) -> bool:
    return await scribe.trouble() is None


async def test_a_letter_and_its_position_are_one_transaction(stack: Stack) -> None:
    """A table of letters that refuses them stops the stream, and loses nothing."""
    owner = await stack.shard()
    await stack.sql("ALTER TABLE dead_letters ADD CONSTRAINT shut CHECK (false)")
    await submit(owner, stack.event(), broken(stack, "a NUL"), stack.event())

    scribe = await stack.writer()
    await eventually(scribe.trouble)
    assert await is_stored(stack, 0, 0)

    await stack.sql("ALTER TABLE dead_letters DROP CONSTRAINT shut")
    await eventually(lambda: is_stored(stack, 2, 1))
    assert await books(stack) == {"rows": 2, "dead": 1}


async def test_no_row_is_blamed_for_what_fails_without_it(stack: Stack) -> None:
    """The table of letters refuses three of them, whichever: the others still become rows."""
    await stack.sql("CREATE SEQUENCE refusals")
    await stack.sql(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('refusals') <= 3 THEN
                RAISE EXCEPTION 'shut' USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    await stack.sql(
        "CREATE TRIGGER shut BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    owner = await stack.shard()
    await submit(owner, stack.event(), broken(stack, "a NUL"), stack.event())

    await stack.writer()
    await eventually(lambda: is_stored(stack, 2, 1))
    assert await books(stack) == {"rows": 2, "dead": 1}


# -- sending it again ----------------------------------------------------------------


async def test_a_letter_that_was_sent_again_is_a_row(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    scribe = await stack.writer()
    poison = stack.event(leadId="poison")
    await submit(owner, poison)
    await eventually(lambda: is_stored(stack, 0, 1))

    await stack.sql("ALTER TABLE events DROP CONSTRAINT no_poison")
    await redrive(owner, poison)
    await eventually(lambda: is_stored(stack, 1, 1))

    (letter,) = await letters(stack)
    (row,) = await stack.rows()
    assert (letter["status"], row["event_id"].bytes) == ("redriven", poison.event_id)
    assert await books(stack) == {"rows": 1, "dead": 1}
    status = await scribe.writer.status()
    assert status["books"] == {"rows": 1, "dead": 1, "discarded": 0, "missing": 0}
    assert status["stored"] == {"high": 0, "normal": 2, "parked": 0}


async def test_a_letter_that_was_sent_twice_is_one_row(stack: Stack) -> None:
    """In one flush, or one after the other."""
    owner = await stack.shard()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    scribe = await stack.writer()
    poison = stack.event(leadId="poison")
    await submit(owner, poison)
    await eventually(lambda: is_stored(stack, 0, 1))
    await stack.sql("ALTER TABLE events DROP CONSTRAINT no_poison")
    await redrive(owner, poison, poison)
    await eventually(lambda: is_stored(stack, 1, 1))
    await redrive(owner, poison)
    await submit(owner, stack.event())
    await eventually(lambda: is_stored(stack, 2, 1))

    assert len(await stack.batches(poison.partition)) >= 3
    assert await books(stack) == {"rows": 2, "dead": 1, "discarded": 2}
    assert (await scribe.writer.status())["books"]["discarded"] == 2


async def test_a_letter_that_was_given_up_never_becomes_a_row(stack: Stack) -> None:
    """Also when it is on its way already, and whether its row is good or not."""
    owner = await stack.shard()
    await stack.writer()
    bad = broken(stack, "a NUL")
    await submit(owner, bad)
    await eventually(lambda: is_stored(stack, 0, 1))
    await stack.sql("UPDATE dead_letters SET status = 'discarded'")

    await redrive(owner, bad)
    await redrive(owner, stack.event())
    await submit(owner, stack.event())
    await eventually(lambda: is_stored(stack, 1, 1))

    (letter,) = await letters(stack)
    assert (letter["status"], letter["attempts"]) == ("discarded", 1)
    assert await books(stack) == {"rows": 1, "dead": 1, "discarded": 2}


async def test_a_letter_that_is_given_up_while_its_row_is_looked_for_stays_so(
    stack: Stack,
) -> None:
    """What the tries have found is not true any more in the last transaction."""
    owner = await stack.shard()
    scribe = await stack.writer()
    bad = broken(stack, "a NUL", campaignId=stack.campaign_in(0))
    await submit(owner, bad)
    await eventually(lambda: is_stored(stack, 0, 1))
    await scribe.kill()
    await redrive(owner, bad)
    _, entry = await stack.batches(0)
    wheres = [(0, NORMAL)]
    rows = RowWriter(stack.database_url, stack.schema, "tests", wheres)
    old = (await rows.take_over())[0, NORMAL].position
    moves = [Move((0, NORMAL), old, entry.id, [entry])]
    await stack.sql("UPDATE dead_letters SET status = 'discarded'")

    found = {Place((0, NORMAL), entry.id, 0): Refusal("refused again", "22021")}
    await rows.flush(moves, found)
    await rows.close()

    (letter,) = await letters(stack)
    assert (letter["status"], letter["attempts"]) == ("discarded", 1)
    assert await books(stack) == {"dead": 1, "discarded": 1}


async def test_a_letter_that_fails_again_is_the_same_letter(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.writer()
    bad = broken(stack, "a NUL", campaignId=stack.campaign_in(1))
    await submit(owner, bad)
    await eventually(lambda: is_stored(stack, 0, 1))
    (first,) = await letters(stack)

    good = stack.event(campaignId=stack.campaign_in(1))
    await submit(owner, good, msgspec.structs.replace(bad, flags=bad.flags | REDRIVE))
    await eventually(lambda: is_stored(stack, 1, 1))

    (again,) = await letters(stack)
    assert (again["status"], again["attempts"]) == ("dead", 2)
    assert again["failed_at"] > first["failed_at"]
    assert again["first_failed_at"] == first["first_failed_at"]
    assert again["flags"] == first["flags"]
    assert again["log_index"] == 1
    _, second = await stack.batches(1)
    assert EntryId(again["log_epoch"], again["log_seq"]) == second.id
    assert await books(stack) == {"rows": 1, "dead": 2}


async def test_a_redrive_that_is_rolled_back_leaves_the_letter_dead(stack: Stack) -> None:
    """The flip, the row and the position are one transaction."""
    owner = await stack.shard()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    scribe = await stack.writer()
    poison = stack.event(leadId="poison")
    await submit(owner, poison)
    await eventually(lambda: is_stored(stack, 0, 1))
    await stack.sql("ALTER TABLE events DROP CONSTRAINT no_poison")
    await stack.sql("ALTER TABLE log_positions RENAME COLUMN discarded_total TO elsewhere")

    await redrive(owner, poison)
    await eventually(scribe.trouble)
    (letter,) = await letters(stack)
    assert letter["status"] == "dead"

    await stack.sql("ALTER TABLE log_positions RENAME COLUMN elsewhere TO discarded_total")
    await eventually(lambda: is_stored(stack, 1, 1))
    assert (await letters(stack))[0]["status"] == "redriven"
