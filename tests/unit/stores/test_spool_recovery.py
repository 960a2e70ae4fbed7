"""Whatever a crash or a failing disk left in a spool: the whole records of it are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ray_tracking.stores.spool.segments import Segments
from tests.unit.stores.spools import (
    HEADER_BYTES,
    adopted,
    fill,
    new_spool,
    payloads,
    read_all,
    segment_files,
)

SENT = [b"first", b"the second of three", b"third"]
#: Where each of them begins, and where the last one ends.
STARTS = [0, 21, 56, 77]
#: What of their events is left without the n-th of them.
EVENTS_WITHOUT = [5, 4, 3]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def kept_aside(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("corrupt/*")}


def change(path: Path, at: int, data: bytes) -> None:
    """Put other bytes into a file."""
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def flip(path: Path, at: int, bits: int = 0xFF) -> None:
    change(path, at, bytes([path.read_bytes()[at] ^ bits]))


# -- the tail --------------------------------------------------------------


async def test_a_tail_that_is_torn_at_any_byte_is_cut_off(directory: Path) -> None:
    path = await fill(directory, SENT)
    [segment] = segment_files(path)
    whole = segment.read_bytes()
    for size in range(STARTS[2], STARTS[3]):
        segment.write_bytes(whole[:size])

        async with adopted(directory) as spool:
            assert (spool.end, spool.events, spool.corrupt) == (STARTS[2], 3, 0)
            assert await payloads(spool) == SENT[:2]
            assert segment.read_bytes() == whole[: STARTS[2]]

    assert kept_aside(directory) == {}


@pytest.mark.parametrize("garbage", [bytes(5000), b"\xfe\xffsp" * 100, b"?", b"\xfe\xffsp\xff\xff"])
async def test_garbage_behind_the_last_record_is_cut_off_and_kept_aside(
    directory: Path, garbage: bytes
) -> None:
    """A write that was cut short does not leave that: something may have been acknowledged."""
    path = await fill(directory, SENT)
    [segment] = segment_files(path)
    with segment.open("ab") as file:
        file.write(garbage)

    async with adopted(directory) as spool:
        assert (spool.end, spool.events) == (STARTS[3], 6)
        assert await payloads(spool) == SENT
        kept = {} if garbage.endswith(b"sp\xff\xff") else {f"{path.name}-77.bin": garbage}
        assert kept_aside(directory) == kept
        assert spool.corrupt == len(kept)
        await spool.advance(spool.end)
        assert spool.is_empty


async def test_a_spool_with_nothing_but_a_torn_record_is_empty(directory: Path) -> None:
    path = await fill(directory, [b"one"])
    os.truncate(segment_files(path)[0], 18)

    async with adopted(directory) as spool:
        assert (spool.is_empty, spool.end) == (True, 0)
        assert segment_files(path) == []


async def test_an_empty_segment_is_nothing_special(directory: Path) -> None:
    path = await fill(directory, SENT)
    (path / f"{STARTS[3]:020}.seg").touch()

    async with adopted(directory) as spool:
        assert (spool.end, spool.events, spool.corrupt) == (STARTS[3], 6, 0)
        assert await payloads(spool) == SENT
        await spool.advance(spool.end)
        assert spool.is_empty
        assert segment_files(path) == []


async def test_a_torn_record_before_an_empty_segment_is_damage(directory: Path) -> None:
    """The segment behind it was begun after all of this one was fsynced."""
    path = await fill(directory, SENT)
    [segment] = segment_files(path)
    (path / f"{STARTS[3]:020}.seg").touch()
    os.truncate(segment, STARTS[3] - 1)

    async with adopted(directory) as spool:
        assert spool.end == STARTS[3]
        assert await payloads(spool) == SENT[:2]
        assert spool.corrupt == 1
        await spool.advance(STARTS[2])
        assert spool.is_empty


async def test_a_tail_that_cannot_be_cut_off_is_not_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await fill(directory, SENT)
    os.truncate(segment_files(path)[0], STARTS[3] - 1)
    monkeypatch.setattr(os, "truncate", failing(PermissionError("read-only")))

    async with adopted(directory) as spool:
        assert await payloads(spool) == SENT[:2]
        await spool.advance(spool.end)
        assert spool.is_empty


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


# -- in the middle ---------------------------------------------------------


@pytest.mark.parametrize("hit", [0, 1])
@pytest.mark.parametrize("max_bytes", [1, 1000])
async def test_damage_at_any_byte_of_a_record_leaves_the_others(
    directory: Path, hit: int, max_bytes: int
) -> None:
    path = await fill(directory, SENT)
    [segment] = segment_files(path)
    whole = segment.read_bytes()
    start, end = STARTS[hit], STARTS[hit + 1]
    for at in range(start, end):
        segment.write_bytes(whole)
        flip(segment, at)
        damaged = segment.read_bytes()[start:end]

        async with adopted(directory) as spool:
            assert (spool.end, spool.events) == (STARTS[3], EVENTS_WITHOUT[hit])
            read = await read_all(spool, max_bytes)
            assert [record.payload for record in read] == SENT[:hit] + SENT[hit + 1 :]
            assert spool.corrupt == 1
            assert kept_aside(directory) == {f"{path.name}-{start}.bin": damaged}
        # The cursor of a spool whose first record is damaged has moved.
        (path / "cursor").unlink()


@pytest.mark.parametrize("at", range(HEADER_BYTES + 5))
async def test_damage_at_any_byte_of_the_last_record_keeps_it_aside_or_cuts_it_off(
    directory: Path, at: int
) -> None:
    path = await fill(directory, SENT)
    flip(segment_files(path)[0], STARTS[2] + at)

    async with adopted(directory) as spool:
        assert await payloads(spool) == SENT[:2]
        # With a length that is too large, it looks like a write that was cut short.
        assert spool.corrupt == (0 if at in (4, 5, 6) else 1)
        await spool.advance(STARTS[2])
        assert spool.is_empty


async def test_damage_is_reported_once(directory: Path) -> None:
    path = await fill(directory, SENT)
    flip(segment_files(path)[0], 30)

    async with adopted(directory) as spool:
        with capture_logs() as logs:
            for _ in range(3):
                await read_all(spool)

        assert [(line["log_level"], line["event"]) for line in logs] == [
            ("error", "damage in the spool")
        ]
        assert logs[0]["offset"] == STARTS[1]
        assert logs[0]["copy"] == str(directory / "corrupt" / f"{path.name}-21.bin")
        assert spool.corrupt == 1


async def test_damage_that_cannot_be_copied_is_not_in_the_way_either(directory: Path) -> None:
    path = await fill(directory, SENT)
    flip(segment_files(path)[0], 30)
    (directory / "corrupt").touch()

    async with adopted(directory) as spool:
        with capture_logs() as logs:
            assert await payloads(spool) == [SENT[0], SENT[2]]

        assert [line["event"] for line in logs] == [
            "damage in the spool cannot be copied",
            "damage in the spool",
        ]
        assert spool.corrupt == 1


async def test_a_spool_in_which_everything_is_damaged_is_empty_after_a_read(
    directory: Path,
) -> None:
    """Nothing can be read, so nothing will ever be advanced to."""
    async with new_spool(directory, segment_bytes=1) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        for segment in segment_files(directory / spool.id):
            flip(segment, 3)

        assert await spool.read(0, 1000) == []
        assert (spool.is_empty, spool.corrupt, spool.events) == (True, 3, 0)
        assert segment_files(directory / spool.id) == []
        assert await spool.append(b"next", 1) == STARTS[3]
        assert await payloads(spool) == [b"next"]


@pytest.mark.parametrize("segment_bytes", [1, 1000])
async def test_damage_at_the_end_is_drained_with_what_is_before_it(
    directory: Path, segment_bytes: int
) -> None:
    async with new_spool(directory, segment_bytes=segment_bytes) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        flip(segment_files(directory / spool.id)[-1], -1)

        assert await payloads(spool) == SENT[:2]
        assert not spool.is_empty
        assert spool.events == 3  # what was in the damage is not known
        await spool.advance(STARTS[2])
        assert (spool.is_empty, spool.events) == (True, 0)


async def test_a_segment_that_lost_its_end_costs_the_records_in_it(directory: Path) -> None:
    path = await fill(directory, SENT, segment_bytes=30)
    first, last = segment_files(path)
    os.truncate(first, STARTS[1] + 10)
    assert last.name == f"{STARTS[2]:020}.seg"

    async with adopted(directory) as spool:
        assert await payloads(spool) == [SENT[0], SENT[2]]
        assert (spool.corrupt, spool.events) == (1, 4)


async def test_a_segment_that_was_lost_costs_the_records_in_it(directory: Path) -> None:
    path = await fill(directory, SENT, segment_bytes=1)
    segment_files(path)[1].unlink()

    async with adopted(directory) as spool:
        assert await payloads(spool) == [SENT[0], SENT[2]]
        assert (spool.corrupt, spool.events) == (1, 4)


# -- the cursor ------------------------------------------------------------


async def test_a_cursor_that_cannot_be_read_means_the_first_segment(directory: Path) -> None:
    async with new_spool(directory, segment_bytes=1) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        await spool.advance(STARTS[1])
        path = directory / spool.id
    cursor = path / "cursor"
    whole = cursor.read_bytes()
    # A new spool, of which nothing is drained, has none.
    broken = [b"", b"-1", b"99", b"\xff" * 30, bytes(30), whole[:-1], whole + b"0"]
    broken += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [None, *broken]:
        cursor.unlink()
        if content is not None:
            cursor.write_bytes(content)

        async with adopted(directory) as spool:
            assert (spool.cursor, spool.events) == (STARTS[1], 2)
            assert await payloads(spool) == SENT[1:]


async def test_a_cursor_file_that_was_being_written_does_not_count(directory: Path) -> None:
    async with new_spool(directory) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        await spool.advance(STARTS[1])
        path = directory / spool.id
    (path / "cursor.tmp").write_bytes((path / "cursor").read_bytes().replace(b"21", b"56"))

    async with adopted(directory) as spool:
        assert spool.cursor == STARTS[1]


async def test_segments_that_were_drained_and_not_yet_deleted_are(directory: Path) -> None:
    async with new_spool(directory, segment_bytes=1) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        path = directory / spool.id
        drained = segment_files(path)[0]
        content = drained.read_bytes()
        await spool.advance(STARTS[1])
    drained.write_bytes(content)

    async with adopted(directory) as spool:
        assert await payloads(spool) == SENT[1:]
        assert not drained.exists()


async def test_a_cursor_behind_all_that_is_left_means_that_nothing_is(directory: Path) -> None:
    """A power failure took segments whose records the log already has."""
    async with new_spool(directory) as spool:
        for payload in SENT:
            await spool.append(payload, 1)
        await spool.advance(STARTS[2])
        path = directory / spool.id
    os.truncate(segment_files(path)[0], STARTS[1])

    async with adopted(directory) as spool:
        assert (spool.is_empty, spool.events, spool.cursor) == (True, 0, STARTS[2])


async def test_the_log_may_know_a_later_cursor(directory: Path) -> None:
    """The adopter moves there before it reads anything; events are counted on the way."""
    path = await fill(directory, SENT)
    flip(segment_files(path)[0], 3)

    async with adopted(directory) as spool:
        await spool.advance(STARTS[2])

        assert (spool.cursor, spool.events) == (STARTS[2], 3)
        assert await payloads(spool) == SENT[2:]


async def test_other_files_in_a_spool_are_let_be(directory: Path) -> None:
    path = await fill(directory, SENT)
    (path / "notes.seg").touch()
    (path / "next.tmp").touch()

    async with adopted(directory) as spool:
        assert await payloads(spool) == SENT


# -- any history -----------------------------------------------------------

Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["fsync fails", "truncating fails too"]), st.integers(1, 4)),
        st.tuples(st.just("drain"), st.integers(1, 6)),
    ),
    max_size=15,
)


@given(steps=steps, segment_bytes=st.sampled_from([1, 60, 1000]), flips=st.integers(0, 3))
def test_after_any_history_exactly_what_was_acknowledged_is_read(
    steps: list[Step], segment_bytes: int, flips: int
) -> None:
    """And after a crash at any of its ends; damage costs no more records than bits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool" / ("0" * 32)
        path.mkdir(parents=True)
        segments = Segments(path, segment_bytes)
        kept = play(segments, steps)
        expected = [payload for _, payload in kept]
        assert read(segments) == expected
        assert segments.figures.events == len(expected)
        segments.close()

        copy = path.with_name("1" * 32)
        shutil.copytree(path, copy)
        again = Segments(copy, 1)
        again.recover()
        after = read(again)
        # An append that failed may be whole on the disk, if it was the last and stayed there.
        assert after[: len(expected)] == expected
        assert all(payload.startswith(b"failed") for payload in after[len(expected) :])
        assert again.figures.events == len(after)

        for file in segment_files(path)[:flips]:
            if size := file.stat().st_size:
                flip(file, size // 2, 0x10)
        damaged = Segments(path, 1)
        damaged.recover()
        left = read(damaged)
        assert len(left) >= len(expected) - flips
        assert [payload for payload in after if payload in left] == left


def play(segments: Segments, steps: list[Step]) -> list[tuple[int, bytes]]:
    """The end and payload of each record that must be readable afterwards."""
    kept: list[tuple[int, bytes]] = []
    for number, (step, count) in enumerate(steps):
        if step == "drain":
            drained, kept = kept[:count], kept[count:]
            if drained:
                segments.advance(drained[-1][0])
            continue
        word = b"kept" if step == "write" else b"failed"
        group = [b"%s %d %d" % (word, number, index) for index in range(count)]
        with pytest.MonkeyPatch.context() as patch:
            if step != "write":
                patch.setattr(os, "fdatasync", failing(OSError("fsync")))
            if step == "truncating fails too":
                patch.setattr(os, "ftruncate", failing(OSError("ftruncate")))
            try:
                offsets = segments.write([(payload, 1) for payload in group])
            except OSError:
                assert step != "write"
                continue
        ends = [*offsets[1:], segments.figures.end]
        kept += zip(ends, group, strict=True)
    return kept


def read(segments: Segments) -> list[bytes]:
    found: list[bytes] = []
    offset = segments.figures.cursor
    while records := segments.read(offset, 50):
        found += [record.payload for record in records]
        offset = records[-1].end
    return found
