"""Rows: what goes into Postgres is what was accepted, to the microsecond and the last digit."""

from __future__ import annotations

import json
import re
import struct
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address, ip_interface
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.events import Agent, Event, EventType, Lane
from ray_tracking.pipeline.rows import (
    COLUMNS,
    COPY_HEADER,
    COPY_TRAILER,
    DETAIL_FIELDS,
    POSITION_COLUMNS,
    copy_tuples,
    decode_row,
    encode_json,
    encode_row,
    event_data,
    iso_utc,
    packed_ip,
    split_rows,
)
from ray_tracking.pipeline.validate import validate_item
from tests.unit.pipeline.samples import (
    COMMON_OPTIONAL,
    NOW,
    NOW_MS,
    NOW_S,
    OWN_OPTIONAL,
    REQUIRED,
    accepted,
    minted,
    valid,
    valid_items,
)


def columns_of(event: Event) -> dict[str, Any]:
    return decode_row(encode_row(event, minted(1), NOW_MS))


def fields_of(blob: bytes) -> list[list[bytes | None]]:
    """The tuples of a binary COPY, read as Postgres reads them."""
    tuples = []
    at = 0
    while at < len(blob):
        (count,) = struct.unpack_from(">h", blob, at)
        at += 2
        fields: list[bytes | None] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", blob, at)
            at += 4
            fields.append(None if size < 0 else blob[at : at + size])
            at += max(0, size)
        tuples.append(fields)
    assert at == len(blob)
    return tuples


# -- one row -----------------------------------------------------------------


@given(valid_items())
def test_a_valid_event_comes_back_as_it_was_accepted(whole: dict[str, Any]) -> None:
    event = validate_item(whole, now_s=NOW_S)
    columns = columns_of(event)

    assert tuple(columns) == COLUMNS
    assert event_data(columns) == accepted(event)


@pytest.mark.parametrize("event_type", EventType)
def test_every_field_of_every_type_has_its_place(event_type: EventType) -> None:
    event = valid(event_type, **COMMON_OPTIONAL | OWN_OPTIONAL[event_type])

    assert event_data(columns_of(event)) == accepted(event)


def test_the_columns_are_what_people_query() -> None:
    event = valid("EMAIL_BOUNCE", **COMMON_OPTIONAL, smtpCode=550)

    assert columns_of(event) == {
        "event_id": UUID(bytes=minted(1)),
        "event_type": "EMAIL_BOUNCE",
        "campaign_id": "c1",
        "lead_id": "l1",
        "email_id": "e1",
        "account_id": "a7",
        "client_event_id": "order-7",
        "occurred_at": datetime(2026, 11, 23, 19, tzinfo=UTC),
        "received_at": NOW,
        "agent": None,
        "link_url": None,
        "bounce_type": "hard",
        "ip_address": ip_address("203.0.113.9"),
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "device": '{"type":"desktop","os":"Linux","browser":"Firefox","version":"125.0"}',
        "location": '{"country":"FR","region":"IDF","city":"Paris","timezone":"Europe/Paris"}',
        "custom": '{"plan":"gold","scores":[1,2.5,null,true]}',
        "details": '{"smtpCode":550}',
    }


def test_what_an_event_does_not_have_is_null() -> None:
    columns = columns_of(valid("ACCOUNT_HEALTH_UPDATE"))

    assert [name for name, value in columns.items() if value is not None] == [
        "event_id",
        "event_type",
        "account_id",
        "occurred_at",
        "received_at",
    ]


def test_an_empty_text_is_not_the_same_as_none() -> None:
    event = valid("EMAIL_REPLY", userAgent="", subject="", deviceInfo={}, customData={})

    assert event_data(columns_of(event)) == accepted(event)


@pytest.mark.parametrize("agent", [None, *Agent])
def test_the_agent_is_kept(agent: Agent | None) -> None:
    event = Event(EventType.EMAIL_OPEN, REQUIRED[EventType.EMAIL_OPEN], 0, False, agent)

    assert columns_of(event)["agent"] == agent


@given(st.ip_addresses())
def test_an_address_is_packed_as_postgres_does(address: Any) -> None:
    packed = packed_ip(str(address))

    assert packed[0] == (2 if address.version == 4 else 3)
    assert packed[1] == address.max_prefixlen
    assert packed[2] == 0
    assert packed[3] == len(packed[4:]) == address.max_prefixlen // 8
    assert ip_address(packed[4:]) == address


@pytest.mark.parametrize("address", ["fe80::1%eth0", "1.2.3", "1.2.3.4/8"])
def test_a_scoped_address_is_none_for_postgres(address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(address)):
        packed_ip(address)


@given(st.integers(-62_135_596_800_000_000, 4_000_000_000_000_000))
def test_times_are_kept_to_the_microsecond(occurred_us: int) -> None:
    event = Event(EventType.EMAIL_OPEN, REQUIRED[EventType.EMAIL_OPEN], occurred_us, False)
    read = columns_of(event)["occurred_at"]

    assert (read - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == occurred_us


@given(st.dictionaries(st.text("ab\u2028é", max_size=3), st.integers(), max_size=3))
def test_json_is_compact_and_its_integers_have_any_size(value: dict[str, int]) -> None:
    """A number that came back as a float would be another number."""
    encoded = encode_json(value | {"big": 2**200 + 1})

    assert json.loads(encoded) == value | {"big": 2**200 + 1}
    assert encoded == json.dumps(
        value | {"big": 2**200 + 1}, ensure_ascii=False, separators=(",", ":")
    ).encode("utf-8")


def test_a_row_that_postgres_gave_back_reads_the_same() -> None:
    """asyncpg gives an interface where a mask is stored, and times in any zone."""
    event = valid("EMAIL_OPEN", ipAddress="203.0.113.9")
    columns = columns_of(event)
    cest = timezone(timedelta(hours=2))
    queried = columns | {
        "ip_address": ip_interface("203.0.113.9"),
        "occurred_at": columns["occurred_at"].astimezone(cest),
    }

    assert event_data(queried) == accepted(event)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "2026-11-23T19:20:00.000Z"),
        (5000, "2026-11-23T19:20:00.005Z"),
        (5001, "2026-11-23T19:20:00.005001Z"),
    ],
)
def test_times_are_shown_in_utc_with_three_or_six_digits(us: int, text: str) -> None:
    moment = NOW + timedelta(microseconds=us)

    assert iso_utc(moment) == text
    assert iso_utc(moment.astimezone(timezone(timedelta(hours=-5)))) == text


def test_every_field_without_a_column_is_a_detail_of_its_type() -> None:
    """A field that is neither would be accepted and lost."""
    columns = {"campaignId", "leadId", "emailId", "accountId", "linkUrl", "bounceType", "timestamp"}
    for event_type in EventType:
        own = REQUIRED[event_type].keys() | OWN_OPTIONAL[event_type].keys()
        assert set(DETAIL_FIELDS[event_type]) == own - columns


# -- many rows ---------------------------------------------------------------


@given(st.lists(valid_items(), max_size=3), st.integers(0, 1000), st.sampled_from(Lane))
def test_a_copy_has_23_fields_a_row_and_ends_where_it_should(
    items: list[dict[str, Any]], partition: int, lane: Lane
) -> None:
    rows = [encode_row(validate_item(i, now_s=NOW_S), minted(1), NOW_MS) for i in items]
    blob = copy_tuples(partition, lane, 1_795_459_200, 2**40, enumerate(rows, start=5))

    tuples = fields_of(blob)
    assert len(tuples) == len(rows)
    for index, (fields, row) in enumerate(zip(tuples, rows, strict=True), start=5):
        assert len(fields) == len(POSITION_COLUMNS) + len(COLUMNS) == 23
        assert fields[:5] == [
            struct.pack(">i", partition),
            lane.encode(),
            struct.pack(">q", 1_795_459_200),
            struct.pack(">q", 2**40),
            struct.pack(">i", index),
        ]
        assert fields_of(struct.pack(">h", len(COLUMNS)) + row) == [fields[5:]]


def test_header_and_trailer_are_those_of_postgres() -> None:
    assert b"PGCOPY\n\xff\r\n\x00" + bytes(8) == COPY_HEADER
    assert COPY_TRAILER == b"\xff\xff"


@given(st.lists(st.binary(max_size=9)))
def test_rows_that_stand_end_to_end_are_cut_where_they_were_joined(rows: list[bytes]) -> None:
    assert split_rows(b"".join(rows), [len(row) for row in rows]) == rows
