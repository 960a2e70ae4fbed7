"""Frames: every whole record is found, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ray_tracking.stores.spool.frames import (
    Damage,
    Record,
    first_record,
    frame_bytes,
    header,
    is_cut_short,
    scan,
)

START = 5_000_000_000
contents = st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 2**32 - 1)), max_size=6)


def frames(records: list[tuple[bytes, int]], offset: int = START) -> bytes:
    data = b""
    for payload, events in records:
        data += header(payload, events, offset + len(data)) + payload
    return data


def found(data: bytes, end: int | None = None) -> list[Record | Damage]:
    return list(scan(data, START, START + len(data) if end is None else end))


@given(contents)
def test_what_was_written_is_read(records: list[tuple[bytes, int]]) -> None:
    read = [item for item in found(frames(records)) if isinstance(item, Record)]

    assert [(record.payload, record.events) for record in read] == records
    assert [record.end - record.offset for record in read] == [
        frame_bytes(payload) for payload, _ in records
    ]


@given(contents, st.data())
def test_a_flipped_bit_costs_the_record_it_is_in_and_no_other(
    records: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    whole = frames([*records, (b"last", 1)])
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    hit = START + bit // 8
    expected = [item for item in found(whole) if not item.offset <= hit < item.end]

    items = found(bytes(damaged))

    assert [item for item in items if isinstance(item, Record)] == expected
    [damage] = [item for item in items if isinstance(item, Damage)]
    assert damage.offset <= hit < damage.end
    assert damage.data == damaged[damage.offset - START : damage.end - START]


@given(contents, st.binary(max_size=60), contents)
@example([(b"before", 1)], b"\xfe\xff" * 20, [(b"behind", 2)])
@example([], b"\xfe\xffsp" * 9, [(b"behind", 2)])
def test_records_are_found_behind_any_garbage(
    before: list[tuple[bytes, int]], garbage: bytes, behind: list[tuple[bytes, int]]
) -> None:
    data = frames(before) + garbage
    data += frames(behind, START + len(data))

    items = found(data)

    records = [(item.payload, item.events) for item in items if isinstance(item, Record)]
    assert records == before + behind
    assert b"".join(item.data for item in items if isinstance(item, Damage)) == garbage
    assert [item.offset for item in items[1:]] == [item.end for item in items[:-1]]


def test_missing_bytes_are_damage_up_to_the_end() -> None:
    data = frames([(b"one", 1), (b"two", 2)])

    one, damage = found(data[:-1], end=START + 1000)
    assert one == Record(START, START + 19, 1, b"one")
    assert damage == Damage(START + 19, START + 1000, data[19:-1])
    assert found(b"", end=START + 7) == [Damage(START, START + 7, b"")]


def test_a_frame_is_a_record_only_where_it_was_written() -> None:
    """After a power failure a file may hold what another had on the same place of the disk."""
    assert first_record(frames([(b"one", 1)]), START) is not None
    assert first_record(frames([(b"one", 1)]), START + 1) is None


def test_a_length_that_no_record_has_is_damage() -> None:
    data = bytearray(frames([(b"one", 1)]))
    data[4:8] = (16 * 1024 * 1024 + 1).to_bytes(4, "little")

    assert first_record(bytes(data), START) is None
    assert not is_cut_short(bytes(data))


@given(st.binary(max_size=40), st.data())
def test_a_part_of_a_frame_is_cut_short(payload: bytes, data: st.DataObject) -> None:
    frame = frames([(payload, 1)])

    assert not is_cut_short(frame)
    assert is_cut_short(frame[: data.draw(st.integers(0, len(frame) - 1))])


def test_zeros_are_not_a_frame_that_was_cut_short() -> None:
    assert not is_cut_short(bytes(3))
    assert not is_cut_short(bytes(30))
