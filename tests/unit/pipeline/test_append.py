"""Entries of the log: what is written can be read, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.append import (
    ORIGIN,
    VERSION,
    BadEntry,
    Entry,
    EntryId,
    Header,
    Kind,
    decode_entry,
    encode_batch,
    encode_entry,
    next_epoch,
    remembered,
)
from ray_tracking.pipeline.route import Router, Submission
from ray_tracking.pipeline.validate import validate_item
from tests.unit.pipeline.samples import NOW_S, minted, submission, valid_items

ID = b"1795459200-7"

submissions = st.lists(
    st.builds(
        Submission,
        st.just(3),
        st.sampled_from(["c1", "c2", "é", "\x1fa1"]),
        st.just(1),
        st.integers(0, 2**16 - 1),
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=8, max_size=8),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=300),
    ),
    max_size=8,
)


@given(submissions, st.integers(0, 2**60), st.booleans())
def test_a_batch_reads_as_it_was_written(
    batch: list[Submission], total: int, compress: bool
) -> None:
    fields = encode_batch(batch, total=total, appended_ms=17, compress=compress)
    entry = decode_entry(ID, fields)

    assert entry.id == EntryId(1795459200, 7)
    assert entry.header.kind is Kind.BATCH
    assert (entry.header.count, entry.header.total) == (len(batch), total)
    assert entry.header.appended_ms == 17
    assert entry.rows == [s.row for s in batch]
    assert list(remembered(entry.header, 3, 1)) == [
        msgspec.structs.replace(s, row=b"") for s in batch
    ]


@given(st.lists(valid_items(), min_size=1, max_size=4))
def test_the_rows_of_real_events_come_out_of_the_log_as_they_went_in(items: list[Any]) -> None:
    router = Router(1, bytes(16))
    batch = [router.route(validate_item(item, now_s=NOW_S), minted(1)) for item in items]
    entry = decode_entry(ID, encode_batch(batch, total=4, appended_ms=0, compress=True))

    assert entry.rows == [s.row for s in batch]


def test_a_body_is_compressed_only_where_that_pays() -> None:
    small, large = [submission(1, row=b"r" * 511)], [submission(1, row=b"r" * 512)]

    for batch, asked, compressed in [
        (small, True, False),
        (large, True, True),
        (large, False, False),
    ]:
        fields = encode_batch(batch, total=1, appended_ms=0, compress=asked)
        assert decode_entry(ID, fields).header.compressed is compressed
        assert (len(fields[b"b"]) < 100) is compressed


def test_a_campaign_is_named_once_in_an_entry() -> None:
    long = "campaign-" + "x" * 100
    batch = [submission(n, key=long) for n in range(50)]

    assert encode_batch(batch, total=50, appended_ms=0)[b"h"].count(long.encode()) == 1


def test_a_chain_names_what_stands_before_its_marker() -> None:
    chain = Header(kind=Kind.CHAIN, total=9, previous="17-4", spool=("node-1", 4096, 8192))

    assert decode_entry(ID, encode_entry(chain)) == Entry(EntryId.parse(ID), chain, b"")


def test_a_newer_version_is_refused_and_not_guessed_at() -> None:
    """Also one with more columns: a rollback must stop, not write half a row."""
    newer = msgspec.msgpack.encode([VERSION + 1, 0, 1, 1, 1, "", *[[]], *[b""] * 6, False, None, 7])

    with pytest.raises(BadEntry, match=f"has version {VERSION + 1}; this reads {VERSION}"):
        decode_entry(ID, {b"h": newer, b"b": b""})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"h": msgspec.msgpack.encode([1, 0])},
        {b"b": b""},
        {b"h": b"", b"b": b""},
        {b"h": b"\xc1", b"b": b""},
        {b"h": msgspec.msgpack.encode({"kind": 0}), b"b": b""},
        {b"h": msgspec.msgpack.encode([1, 99]), b"b": b""},
        {b"h": msgspec.msgpack.encode(["1", 0]), b"b": b""},
    ],
)
def test_what_is_no_entry_of_ours_is_named(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(BadEntry, match="1795459200-7"):
        decode_entry(ID, fields)


# -- ids ---------------------------------------------------------------------

ids = st.builds(EntryId, st.integers(0, 2**63), st.integers(0, 2**63))


@given(ids, ids)
def test_ids_are_ordered_as_the_server_orders_them(one: EntryId, other: EntryId) -> None:
    """By number and not by digit: 9-1 is before 10-0."""
    assert (one < other) == ((one.epoch, one.seq) < (other.epoch, other.seq))
    assert one >= ORIGIN


@given(ids)
def test_an_id_reads_as_it_is_written(entry_id: EntryId) -> None:
    assert EntryId.parse(str(entry_id)) == EntryId.parse(str(entry_id).encode()) == entry_id


@given(st.lists(st.integers(0, 2**40), max_size=3), st.integers(0, 2**40), st.floats(0, 2**33))
def test_an_epoch_is_larger_than_any_that_was(
    last_epochs: list[int], stored_epoch: int, now_s: float
) -> None:
    epoch = next_epoch(last_epochs, stored_epoch, now_s)

    assert all(epoch > last for last in [*last_epochs, stored_epoch])
    assert epoch >= int(now_s)


def test_an_epoch_is_the_time_where_nothing_asks_for_more() -> None:
    """So a log and a database that are both new start after any earlier life of either."""
    assert next_epoch([0, 0, 0], 0, 1_795_459_200.9) == 1_795_459_200
    assert next_epoch([], 0, 0.0) == 1
    assert next_epoch([1_795_459_300, 0, 5], 7, 1_795_459_200) == 1_795_459_301
