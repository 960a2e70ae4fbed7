"""What stands in the log becomes rows, each event once, whatever happens to the writer."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from msgspec import structs

from ray_tracking.actors.writer import Writer
from ray_tracking.events import LANES, EventType
from ray_tracking.pipeline.append import EntryId, Header, Kind, encode_entry
from ray_tracking.pipeline.gather import Verdict
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import SINGLE, Submission
from ray_tracking.pipeline.rows import COLUMNS
from ray_tracking.stores import session as session_module
from ray_tracking.stores.database import partition_name
from tests.support.parts import Owner, Scribe
from tests.support.proxy import Fault
from tests.support.stack import HIGH, NORMAL, PARKED, Stack
from tests.support.waiting import eventually

#: Of a flush; a step of the roller ends with END.
COMMIT = b"COMMIT"

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

AT = "2026-11-20T21:15:30.123456+02:00"
OCCURRED = datetime(2026, 11, 20, 19, 15, 30, 123456, UTC)

COMMON: dict[str, Any] = {
    "accountId": "account é",
    "eventId": "the caller's own",
    "timestamp": AT,
    "ipAddress": "2001:db8::7",
    "userAgent": "Mozilla/5.0 (X11) \N{SNOWMAN}",
    "deviceInfo": {"type": "mobile", "os": "iOS", "browser": "Mail", "version": "17"},
    "locationInfo": {"country": "FR", "region": "IDF", "city": "Paris", "timezone": "UTC+1"},
    "customData": {"plan": "gold", "n": [1, 2.5, None, True], "big": 2**70, "\N{ROCKET}": "''; --"},
}
OWN: dict[EventType, dict[str, Any]] = {
    EventType.EMAIL_SENT: {},
    EventType.EMAIL_DELIVERED: {},
    EventType.EMAIL_OPEN: {},
    EventType.LINK_CLICK: {"linkUrl": "https://example.com/?q=a%20b&c=\"'", "linkId": "footer"},
    EventType.EMAIL_REPLY: {
        "messageId": "<1@a>",
        "inReplyTo": "<0@a>",
        "subject": "Re: \\N \t",
        "autoReply": False,
    },
    EventType.EMAIL_BOUNCE: {"bounceType": "soft", "bounceReason": "full", "smtpCode": 452},
    EventType.CAMPAIGN_STATUS_CHANGE: {"newStatus": "paused", "oldStatus": "on", "reason": "x"},
    EventType.ACCOUNT_HEALTH_UPDATE: {"healthScore": 87.5, "status": "warm", "reason": "y"},
}
NO_COLUMN = {"linkUrl", "bounceType"}


async def submit(owner: Owner, *submissions: Submission) -> dict[bytes, tuple[int, ...]]:
    """Append events that nothing stands against, as single ones; the position of each."""
    single = [structs.replace(event, flags=event.flags | SINGLE) for event in submissions]
    outcomes = await owner.submit(*single)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
    positions = {}
    for submission, outcome in zip(submissions, outcomes, strict=True):
        assert outcome.position is not None
        positions[submission.event_id] = outcome.position
    return positions


async def has_rows(stack: Stack, number: int) -> bool:
    """Are there so many rows?"""
    return await stack.count() == number


def position_of(row: Any) -> tuple[int, ...]:
    """A row's position, as an acknowledgement writes it."""
    lane = [str(lane) for lane in LANES].index(row["log_lane"])
    return row["log_partition"], lane, row["log_epoch"], row["log_seq"], row["log_index"]


async def assert_rows_are(stack: Stack, acknowledged: dict[bytes, tuple[int, ...]]) -> None:
    """Every acknowledged event is one row at its position, and there are no other rows."""
    await eventually(lambda: has_rows(stack, len(acknowledged)))
    rows = await stack.rows()
    assert {row["event_id"].bytes: position_of(row) for row in rows} == acknowledged
    assert len(rows) == len(acknowledged)


# -- what a row says -----------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
async def test_every_field_of_every_type_comes_to_its_column(stack: Stack, compress: bool) -> None:
    owner = await stack.shard(compress=compress)
    await stack.writer()
    sent = {kind: stack.event(kind, **COMMON | own) for kind, own in OWN.items()}
    acknowledged: dict[bytes, tuple[int, ...]] = {}
    for kind, submission in sent.items():
        # They share an id, which is fine for different accounts and campaigns only.
        unlike = stack.event(kind, **COMMON | OWN[kind] | {"eventId": f"id of {kind}"})
        sent[kind] = unlike
        assert submission.key == unlike.key
        acknowledged |= await submit(owner, unlike)
    await assert_rows_are(stack, acknowledged)
    rows = {row["event_type"]: row for row in await stack.rows()}

    for kind, own in OWN.items():
        row, submission = rows[kind], sent[kind]
        received_ms = int.from_bytes(submission.event_id[:6], "big")
        assert row["event_id"] == UUID(bytes=submission.event_id)
        assert row["received_at"] == datetime.fromtimestamp(received_ms / 1000, UTC)
        assert row["occurred_at"] == OCCURRED
        assert row["account_id"] == "account é"
        assert row["client_event_id"] == f"id of {kind}"
        assert row["agent"] is None
        assert row["ip_address"] == ip_address("2001:db8::7")
        assert row["user_agent"] == COMMON["userAgent"]
        assert json.loads(row["device"]) == COMMON["deviceInfo"]
        assert json.loads(row["location"]) == COMMON["locationInfo"]
        assert json.loads(row["custom"]) == COMMON["customData"]
        assert row["link_url"] == own.get("linkUrl")
        assert row["bounce_type"] == own.get("bounceType")
        details = {name: value for name, value in own.items() if name not in NO_COLUMN}
        if kind is EventType.EMAIL_REPLY:
            details["subject"] = "Re: \\N"
        assert json.loads(row["details"] or "{}") == details
        is_campaigns = kind is not EventType.ACCOUNT_HEALTH_UPDATE
        assert row["campaign_id"] == ("c1" if is_campaigns else None)
        has_lead = is_campaigns and kind is not EventType.CAMPAIGN_STATUS_CHANGE
        assert (row["lead_id"] is not None, row["email_id"] is not None) == (has_lead, has_lead)


async def test_what_was_not_said_is_null(stack: Stack) -> None:
    owner = await stack.shard()
    await stack.writer()
    await assert_rows_are(stack, await submit(owner, stack.event("EMAIL_SENT")))

    (row,) = await stack.rows()

    said = {"event_id", "event_type", "campaign_id", "lead_id", "email_id"}
    said |= {"occurred_at", "received_at"}
    assert {name for name in COLUMNS if row[name] is not None} == said


async def test_rows_stand_in_the_order_of_the_log(stack: Stack) -> None:
    """Several partitions, all three lanes, entries and flushes of many sizes."""
    owner = await stack.shard(max_entry_events=7, rate=RatePolicy(max_events=30))
    await stack.writer(max_events=10)
    acknowledged: dict[bytes, tuple[int, ...]] = {}
    order: dict[tuple[int, int], list[bytes]] = {}
    for number in range(12):
        types = ["EMAIL_OPEN", "EMAIL_BOUNCE", "EMAIL_OPEN", "EMAIL_OPEN"]
        sent = [
            stack.event(kind, campaignId=f"c{number % 5}", token=f"{number} {at}")
            for at, kind in enumerate(types * 4)
        ]
        # As a call has them: what has priority comes first.
        placed = await submit(owner, *sorted(sent, key=lambda event: event.lane))
        acknowledged |= placed
        for event_id, (partition, lane, *_) in placed.items():
            order.setdefault((partition, lane), []).append(event_id)
    assert {lane for _, lane in order} == {HIGH, NORMAL, PARKED}

    await assert_rows_are(stack, acknowledged)

    stored: dict[tuple[int, int], list[bytes]] = {}
    for row in await stack.rows():
        partition, lane, *_ = position_of(row)
        stored.setdefault((partition, lane), []).append(row["event_id"].bytes)
    assert stored == order


async def test_positions_count_the_rows_that_they_stand_for(stack: Stack) -> None:
    """The books are closed from these totals and from those in the log."""
    owner = await stack.shard()
    await stack.writer()
    sent = [stack.event(campaignId=stack.campaign_in(n % 2)) for n in range(20)]
    await assert_rows_are(stack, await submit(owner, *sent))

    for partition in (0, 1):
        (entry,) = await stack.batches(partition)
        assert await stack.stored(partition) == entry.id
        (row,) = await stack.sql(
            "SELECT rows_total FROM log_positions WHERE log_partition = $1 AND log_lane = 'normal'",
            partition,
        )
        assert row["rows_total"] == entry.header.total == 10


@pytest.mark.parametrize("days_ago", [1, 3, 40])
async def test_an_event_of_another_day_gets_the_table_of_its_day(
    stack: Stack, days_ago: int
) -> None:
    """Events wait: in a log while Postgres is away, in a spool. Their day may have no table."""
    received = datetime.now(UTC) - timedelta(days=days_ago)
    owner = await stack.shard()
    await stack.writer()
    old = stack.event(received_ms=int(received.timestamp() * 1000))
    await assert_rows_are(stack, await submit(owner, old, stack.event()))

    table = partition_name(received.date())
    (row,) = await stack.sql(f"SELECT event_id, received_at FROM {table}")
    assert row["event_id"].bytes == old.event_id
    assert row["received_at"].date() == received.date()


async def test_a_second_row_at_one_position_is_refused_by_the_table(stack: Stack) -> None:
    """The last line of defence, should all others have failed."""
    owner = await stack.shard()
    await stack.writer()
    await assert_rows_are(stack, await submit(owner, stack.event()))

    with pytest.raises(asyncpg.UniqueViolationError):
        await stack.sql("INSERT INTO events SELECT * FROM events")


# -- crashes and restarts ------------------------------------------------------------


async def test_what_was_acknowledged_before_a_writer_was_there_becomes_rows(stack: Stack) -> None:
    owner = await stack.shard()
    acknowledged = await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
    await owner.kill()

    await stack.writer()

    await assert_rows_are(stack, acknowledged)


@pytest.mark.parametrize("question", [b"SET LOCAL", b"COPY", b"COMMIT"])
async def test_a_writer_that_dies_in_a_flush_leaves_it_to_its_successor(
    stack: Stack, question: bytes
) -> None:
    """Its transaction is rolled back: no row twice, none missing."""
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    first = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.strike(question, Fault.HOLD_REQUEST)
    acknowledged |= await submit(owner, *[stack.event() for _ in range(20)])
    await proxy.struck()
    await first.kill()

    await stack.writer()

    await assert_rows_are(stack, acknowledged)


async def test_writers_that_come_and_go_lose_nothing_and_double_nothing(stack: Stack) -> None:
    """Killed without a drain, again and again, while events arrive."""
    owner = await stack.shard()
    acknowledged: dict[bytes, tuple[int, ...]] = {}
    for _ in range(6):
        scribe = await stack.writer(max_events=5)
        for _ in range(8):
            kinds = ["EMAIL_OPEN", "EMAIL_BOUNCE", "LINK_CLICK"]
            acknowledged |= await submit(owner, *[stack.event(kind) for kind in kinds])
        await scribe.kill()
        assert scribe.died is None
    await stack.writer()

    await assert_rows_are(stack, acknowledged)


@pytest.mark.parametrize("name", ["writer-0", "writer-1"], ids=["its name", "another name"])
async def test_a_second_writer_ends_the_first(stack: Stack, name: str) -> None:
    """Two that both believe in their turn would write a row twice, or skip one."""
    owner = await stack.shard()
    first = await stack.writer()
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)

    second = await stack.writer(name)
    await eventually(lambda: _writer_epoch_is(stack, 2))
    for _ in range(5):
        acknowledged |= await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))

    await assert_rows_are(stack, acknowledged)
    await eventually(lambda: first.died)
    assert second.died is None


async def _writer_epoch_is(stack: Stack, epoch: int) -> bool:
    rows = await stack.sql("SELECT DISTINCT writer_epoch FROM log_positions")
    return [row["writer_epoch"] for row in rows] == [epoch]


@pytest.mark.parametrize("name", ["writer-0", "writer-1"], ids=["its name", "another name"])
async def test_a_writer_that_was_paused_in_a_flush_cannot_finish_it_after_a_takeover(
    stack: Stack, name: str
) -> None:
    """
    Its COMMIT would arrive behind the successor's back. A successor of the same name
    ends its session; another one waits some seconds until the server has.
    """
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    zombie = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.strike(COMMIT, Fault.HOLD_REQUEST)
    acknowledged |= await submit(owner, stack.event())
    await proxy.struck()

    await stack.writer(name)
    await eventually(lambda: _writer_epoch_is(stack, 2), within_s=20)
    proxy.release()

    await assert_rows_are(stack, acknowledged)
    await eventually(lambda: zombie.died)


# -- a Postgres that fails -----------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.LOSE_REQUEST, Fault.TEAR_REQUEST])
async def test_a_commit_that_nobody_answered_counts_once(stack: Stack, fault: Fault) -> None:
    """Whether it went through is read from the position, which moved in it or did not."""
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.strike(COMMIT, fault)

    acknowledged |= await submit(owner, *[stack.event() for _ in range(5)])
    await proxy.struck()
    acknowledged |= await submit(owner, stack.event())

    await assert_rows_are(stack, acknowledged)
    assert scribe.died is None


async def test_a_commit_that_arrives_after_it_was_given_up_counts_once(stack: Stack) -> None:
    """The position says "not yet" when it is asked, and moves before the flush is repeated."""
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.strike(COMMIT, Fault.HOLD_REQUEST)
    acknowledged |= await submit(owner, stack.event())
    await proxy.struck()
    proxy.hang_up()
    # The repeated flush waits for the row that the first still holds.
    await eventually(lambda: stack.sql(_WAITING_FOR_A_ROW))

    proxy.release()

    reason = await eventually(lambda: scribe.died)
    assert "position is not where it was left" in reason
    await stack.writer()
    acknowledged |= await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)


_WAITING_FOR_A_ROW = (
    "SELECT 1 FROM pg_stat_activity "
    "WHERE application_name LIKE 'writer-0-%' AND wait_event_type = 'Lock'"
)


async def test_a_network_that_died_without_a_word_is_given_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody closes the connection, so nothing but a time-out of our own ends the wait."""
    monkeypatch.setattr(session_module, "ANSWER_WITHIN_S", 0.3)
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    for question in (b"SET LOCAL", b"COMMIT"):
        proxy.strike(question, Fault.DEAD_CABLE)
        acknowledged |= await submit(owner, stack.event())
        await proxy.struck()

        await assert_rows_are(stack, acknowledged)
    assert scribe.died is None


async def test_a_writer_that_starts_before_postgres_catches_up_when_it_is_there(
    stack: Stack,
) -> None:
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    proxy.refuse()
    scribe = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
    await eventually(scribe.trouble)

    await proxy.accept()

    await assert_rows_are(stack, acknowledged)
    await eventually(lambda: _is_content(scribe))


async def _is_content(scribe: Scribe) -> bool:
    return await scribe.trouble() is None


async def test_events_wait_in_the_log_while_postgres_is_away(stack: Stack) -> None:
    owner = await stack.shard()
    proxy, url = await stack.postgres_proxy()
    scribe = await stack.writer(database_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.refuse()
    proxy.cut()

    for _ in range(3):
        acknowledged |= await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
    await eventually(scribe.trouble)
    assert await stack.count() == 1
    await proxy.accept()

    await assert_rows_are(stack, acknowledged)
    assert scribe.died is None


async def test_a_session_that_an_operator_ended_is_opened_again(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)

    await stack.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'writer-0-%'"
    )
    acknowledged |= await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))

    await assert_rows_are(stack, acknowledged)
    assert scribe.died is None


async def test_a_log_that_goes_away_is_read_on_from_where_it_was(stack: Stack) -> None:
    owner = await stack.shard()
    proxy, url = await stack.valkey_proxy()
    scribe = await stack.writer(redis_url=url)
    acknowledged = await submit(owner, stack.event())
    await assert_rows_are(stack, acknowledged)
    proxy.refuse()
    proxy.cut()
    acknowledged |= await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
    await eventually(scribe.trouble)

    await proxy.accept()

    await assert_rows_are(stack, acknowledged)
    assert scribe.died is None


# -- gaps and markers ----------------------------------------------------------------


async def test_a_gap_stops_its_stream_is_reported_and_stops_nothing_else(stack: Stack) -> None:
    """Acknowledged events are missing: to go on would be to skip them silently."""
    owner = await stack.shard()
    campaign, other = stack.campaign_in(0), stack.campaign_in(1)
    placed = [await submit(owner, stack.event(campaignId=campaign)) for _ in range(3)]
    elsewhere = await submit(
        owner,
        stack.event(campaignId=other),
        stack.event("EMAIL_BOUNCE", campaignId=campaign),
    )
    _, missing, _ = await stack.batches(0)
    await stack.redis.xdel(stack.stream(0), str(missing.id))

    scribe = await stack.writer()

    await assert_rows_are(stack, placed[0] | elsewhere)
    report = await eventually(lambda: stack.redis.hget(f"{stack.prefix}gaps", "0"))
    assert b"normal" in report
    assert str(EntryId(missing.id.epoch, missing.id.seq + 1)).encode() in report
    assert await stack.stored(0) == EntryId(missing.id.epoch, missing.id.seq - 1)
    assert scribe.died is None


async def test_a_gap_that_was_accepted_is_passed_without_a_restart(stack: Stack) -> None:
    owner = await stack.shard()
    campaign = stack.campaign_in(0)
    placed = [await submit(owner, stack.event(campaignId=campaign)) for _ in range(3)]
    _, missing, _ = await stack.batches(0)
    await stack.redis.xdel(stack.stream(0), str(missing.id))
    await stack.writer()
    await eventually(lambda: stack.redis.hget(f"{stack.prefix}gaps", "0"))
    await assert_rows_are(stack, placed[0])

    await stack.sql(
        "UPDATE log_positions SET seq = $1 WHERE log_partition = 0 AND log_lane = 'normal'",
        missing.id.seq,
    )

    await assert_rows_are(stack, placed[0] | placed[2])


async def test_a_log_that_ends_before_the_position_is_a_gap(stack: Stack) -> None:
    """A log that was emptied after it became rows: its new owner's chain says "nothing"."""
    owner = await stack.shard()
    await stack.writer()
    acknowledged = await submit(owner, stack.event(campaignId=stack.campaign_in(0)))
    await assert_rows_are(stack, acknowledged)
    await owner.kill()
    await stack.redis.delete(stack.stream(0))

    await stack.shard()

    report = await eventually(lambda: stack.redis.hget(f"{stack.prefix}gaps", "0"))
    assert b"chain" in report


async def test_a_position_is_never_stored_on_a_marker(stack: Stack) -> None:
    """
    A successor that began there could not compare the chain with anything, and a gap
    before the marker would go unseen.
    """
    owner = await stack.shard()
    campaign = stack.campaign_in(0)
    placed = await submit(owner, stack.event(campaignId=campaign))
    await owner.kill()
    (batch,) = await stack.batches(0)
    marker = EntryId(batch.id.epoch + 10, 0)
    scribe = await stack.writer()
    await assert_rows_are(stack, placed)
    await stack.redis.xadd(stack.stream(0), encode_entry(Header(kind=Kind.MARKER)), id=str(marker))

    await asyncio.wait_for(scribe.writer.drain(), 5)
    assert await stack.stored(0) == batch.id
    await scribe.kill()
    # The takeover was cut off; the next owner's chain names the marker that it left.
    successor = await stack.shard(clock=lambda: (batch.id.epoch + 20) * 1000)
    await stack.writer()
    placed |= await submit(successor, stack.event(campaignId=campaign))

    await assert_rows_are(stack, placed)
    assert await stack.redis.hget(f"{stack.prefix}gaps", "0") is None


async def test_entries_of_several_owners_become_rows_in_one_line(stack: Stack) -> None:
    acknowledged: dict[bytes, tuple[int, ...]] = {}
    scribe = await stack.writer()
    for _ in range(4):
        owner = await stack.shard()
        acknowledged |= await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))
        await owner.kill()

    await assert_rows_are(stack, acknowledged)
    assert scribe.died is None
    assert not await stack.redis.exists(f"{stack.prefix}gaps")


async def test_a_drain_returns_when_everything_in_the_log_is_a_row(stack: Stack) -> None:
    owner = await stack.shard()
    scribe = await stack.writer(max_age_ms=60_000)
    acknowledged = await submit(owner, *[stack.event() for _ in range(50)])

    await asyncio.wait_for(scribe.writer.drain(), 5)

    assert await stack.count() == len(acknowledged)


async def test_a_high_priority_event_does_not_wait_for_company(stack: Stack) -> None:
    """Its lane has a pump of its own, which flushes at once."""
    owner = await stack.shard()
    await stack.writer(max_age_ms=60_000)
    started = time.monotonic()
    await submit(owner, stack.event(), stack.event("EMAIL_BOUNCE"))

    await eventually(lambda: has_rows(stack, 1))

    (row,) = await stack.rows()
    assert row["event_type"] == "EMAIL_BOUNCE"
    assert time.monotonic() - started < 30


async def test_each_mode_has_its_own_wait_for_company(stack: Stack) -> None:
    owner = await stack.shard()
    writer = (await stack.writer(max_age_ms=60_000)).writer

    async def submit() -> None:
        await owner.submit(stack.event(campaignId="c1"))

    await writer.set_pace(Mode.REALTIME, Level.NORMAL)
    await submit()
    await eventually(lambda: stack.has_rows(1))
    await writer.set_pace(Mode.BATCH, Level.CRITICAL)
    await submit()
    # What has priority waits for nobody, and does not take along what waits.
    await owner.submit(stack.event("EMAIL_BOUNCE", campaignId="c1"))
    await eventually(lambda: stack.has_rows(2))
    assert [row["log_lane"] for row in await stack.rows()] == ["high", "normal"]
    await eventually(lambda: _queued(writer, 1))
    await writer.set_pace(Mode.BATCH, Level.EMERGENCY)
    await eventually(lambda: stack.has_rows(3))


async def _queued(writer: Writer, number: int) -> bool:
    return bool((await writer.status())["queued_events"] == number)


async def test_an_entry_that_is_none_of_ours_stops_its_own_stream_alone(stack: Stack) -> None:
    owner = await stack.shard(partitions=[1, 2, 3])
    scribe = await stack.writer()
    foreign = await stack.redis.xadd(stack.stream(0, NORMAL), {"foreign": "1"})
    await submit(owner, *[stack.event(campaignId=stack.campaign_in(1)) for _ in range(3)])
    await eventually(lambda: stack.has_rows(3))
    assert "XDEL" in str(await eventually(scribe.trouble))

    await stack.redis.xdel(stack.stream(0, NORMAL), foreign)

    async def is_well() -> bool:
        return await scribe.trouble() is None

    await eventually(is_well)


async def test_rows_wait_while_a_burst_comes_in_and_follow_when_it_is_over(stack: Stack) -> None:
    owner = await stack.shard()
    writer = (await stack.writer(max_events=50, burst_delay_ms=5000)).writer
    await writer.set_pace(Mode.BATCH, Level.EMERGENCY)
    sent = 0

    async def send(events: int) -> None:
        nonlocal sent
        await owner.submit(*[stack.event(campaignId="c1") for _ in range(events)])
        sent += events

    await send(200)  # shows what full flushes take
    await eventually(lambda: stack.has_rows(200))
    async with asyncio.timeout(20):
        rows = waiting = -1
        while (status := await writer.status())["queued_events"] < waiting + 3000:
            if status["rows"] > rows:  # nothing rests yet
                rows, waiting = status["rows"], status["queued_events"]
            await send(200)
    await eventually(lambda: stack.has_rows(sent))
