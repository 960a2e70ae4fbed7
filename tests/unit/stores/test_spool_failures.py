"""A disk that is full or fails: nothing is acknowledged that is not on it, and it may recover."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ray_tracking.stores.spool import Spool, SpoolFull, orphans
from tests.support.waiting import eventually
from tests.unit.stores.spools import (
    adopted,
    held_up,
    new_spool,
    payloads,
    read_all,
    segment_files,
)

FRAME = 100
PAYLOAD = bytes(84)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


class Disk:
    """The calls that write, failing when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._fdatasync, self._write, self._ftruncate = os.fdatasync, os.write, os.ftruncate
        self.fdatasync_fails = False
        self.ftruncate_fails = False
        #: How many more bytes there is room for.
        self.room: int | None = None
        #: The files that were fsynced, in order; kept open, so that no two have one number.
        self.synced: list[int] = []
        self._kept_open: list[int] = []
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "ftruncate", self.ftruncate)

    def fdatasync(self, fd: int) -> None:
        self.synced.append(os.fstat(fd).st_ino)
        self._kept_open.append(os.dup(fd))
        if self.fdatasync_fails:
            raise error(errno.EIO)
        self._fdatasync(fd)

    def write(self, fd: int, data: bytes) -> int:
        if self.room is None:
            return self._write(fd, data)
        if not self.room:
            raise error(errno.ENOSPC)
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        if self.ftruncate_fails:
            raise error(errno.EIO)
        self._ftruncate(fd, size)

    def close(self) -> None:
        for fd in self._kept_open:
            os.close(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.close()


async def test_a_write_that_finds_no_room_leaves_nothing_behind(
    directory: Path, disk: Disk
) -> None:
    async with new_spool(directory) as spool:
        await spool.append(PAYLOAD, 1)
        disk.room = 30
        with pytest.raises(SpoolFull, match="No space left on device"):
            await spool.append(PAYLOAD, 1)

        assert list(map(os.path.getsize, segment_files(directory / spool.id))) == [FRAME]
        assert (spool.end, spool.events) == (FRAME, 1)

        disk.room = None
        assert await spool.append(b"next", 1) == FRAME
        assert await payloads(spool) == [PAYLOAD, b"next"]


async def test_a_write_that_is_done_in_parts_is_whole(directory: Path, disk: Disk) -> None:
    write = disk.write
    async with new_spool(directory) as spool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
            await spool.append(PAYLOAD, 1)

        assert await payloads(spool) == [PAYLOAD]


async def test_a_file_whose_fsync_failed_is_never_fsynced_again(
    directory: Path, disk: Disk
) -> None:
    """The kernel would say that all is well, and nothing would be on the disk."""
    async with new_spool(directory) as spool:
        await spool.append(PAYLOAD, 1)
        disk.fdatasync_fails = True
        for _ in range(3):
            with pytest.raises(SpoolFull, match="Input/output error"):
                await spool.append(PAYLOAD, 1)
        disk.fdatasync_fails = False
        failed = disk.synced[1:]
        assert await spool.append(b"next", 1) == FRAME

        assert disk.synced[-1] not in failed
        assert len(set(failed)) == len(failed)
        assert [file.name for file in segment_files(directory / spool.id)] == [
            f"{0:020}.seg",
            f"{FRAME:020}.seg",
        ]
        assert await payloads(spool) == [PAYLOAD, b"next"]

    async with adopted(directory) as spool:
        assert await payloads(spool) == [PAYLOAD, b"next"]
        assert spool.corrupt == 0


@pytest.mark.parametrize("segments_before", [0, 1])
async def test_a_reader_stops_before_what_could_not_be_cut_off(
    directory: Path, disk: Disk, segments_before: int
) -> None:
    async with new_spool(directory) as spool:
        for _ in range(segments_before):
            await spool.append(PAYLOAD, 1)
        disk.fdatasync_fails = disk.ftruncate_fails = True
        with pytest.raises(SpoolFull):
            await spool.append(b"failed", 1)
        assert await payloads(spool) == [PAYLOAD] * segments_before

        disk.fdatasync_fails = False
        await spool.append(b"next", 1)
        await spool.append(b"after", 1)
        expected = [PAYLOAD] * segments_before + [b"next", b"after"]
        assert await payloads(spool) == expected

    async with adopted(directory) as spool:
        assert (spool.corrupt, spool.events) == (0, len(expected))
        assert await payloads(spool) == expected


async def test_all_that_share_a_write_share_its_failure_and_no_other_does(
    directory: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    async with new_spool(directory, max_bytes=1000) as spool:
        with held_up(monkeypatch) as gate:
            first = asyncio.create_task(spool.append(PAYLOAD, 1))
            await eventually(lambda: gate.calls)
            group = [asyncio.create_task(spool.append(PAYLOAD, 1)) for _ in range(9)]
            await asyncio.sleep(0)
            disk.room = 0  # for those that are not written yet
            gate.open()
            assert await first == 0
            outcomes = await asyncio.gather(*group, return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} == {SpoolFull}
        assert len({id(outcome) for outcome in outcomes}) == 9
        disk.room = None
        # What failed does not wait in memory any more.
        await asyncio.gather(*[spool.append(PAYLOAD, 1) for _ in range(9)])
        with pytest.raises(SpoolFull, match="1000 of 1000"):
            await spool.append(b"", 1)


async def test_a_segment_that_cannot_be_begun_is_begun_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory, segment_bytes=1) as spool:
        await spool.append(b"one", 1)
        for name in ("rename", "fsync"):
            with monkeypatch.context() as patch:
                patch.setattr(Path if name == "rename" else os, name, failing)
                with pytest.raises(SpoolFull, match="Input/output error"):
                    await spool.append(b"failed", 1)

        await spool.append(b"two", 1)
        assert await payloads(spool) == [b"one", b"two"]

    async with adopted(directory) as spool:
        assert await payloads(spool) == [b"one", b"two"]


def failing(*args: object, **options: object) -> None:
    raise error(errno.EIO)


async def test_no_failure_whatever_leaves_a_caller_waiting(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise MemoryError("no memory")

    async with new_spool(directory) as spool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(SpoolFull, match="no memory"):
                await spool.append(b"failed", 1)

        await spool.append(b"one", 1)
        assert await payloads(spool) == [b"one"]


async def test_a_cursor_that_cannot_be_written_is_only_reported(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)
        await spool.append(b"two", 1)
        await spool.advance(19)
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(os, "fsync", failing)
            await spool.advance(spool.end)

        assert [line["event"] for line in logs] == ["cursor of the spool not kept"]
        assert spool.is_empty
        assert not (directory / spool.id / "cursor.tmp").exists()
        assert await spool.append(b"three", 1) == 38

    async with adopted(directory) as spool:
        assert await payloads(spool) == [b"three"]


async def test_what_cannot_be_read_is_not_drained(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)
        await spool.append(b"two", 1)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", failing)
            with pytest.raises(OSError, match="Input/output error"):
                await spool.read(0, 1000)
            with pytest.raises(OSError, match="Input/output error"):
                await spool.advance(19)

        assert (spool.cursor, spool.events) == (0, 2)
        assert await payloads(spool) == [b"one", b"two"]


async def test_an_orphan_that_cannot_be_read_is_left_to_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        with pytest.raises(OSError, match="Input/output error"):
            await Spool.adopt(directory, spool.id)

    assert await orphans(directory) == [spool.id]


# -- a disk that is really full --------------------------------------------

DISK_BYTES = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def fill_up(spool: Spool) -> int:
    """Append until there is no room; how many came in."""
    for count in range(1000):
        try:
            await spool.append(bytes(5000), 1)
        except SpoolFull as full:
            if "No space left on device" in str(full):
                return count
            raise
    raise AssertionError("the disk does not fill up")


async def test_a_full_disk_takes_events_again_when_others_make_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(DISK_BYTES // 2))
    async with new_spool(small_disk / "spool") as spool:
        count = await fill_up(spool)
        assert await fill_up(spool) == 0
        assert len(await read_all(spool)) == count > 50

        ballast.unlink()
        assert await fill_up(spool) > 50
        assert len(await read_all(spool)) == spool.events > count + 50


@pytest.mark.parametrize("segment_bytes", [50_000, 16 * DISK_BYTES])
async def test_a_full_disk_can_be_drained(small_disk: Path, segment_bytes: int) -> None:
    async with new_spool(small_disk / "spool", segment_bytes=segment_bytes) as spool:
        count = await fill_up(spool)
        drained = 0
        while records := await spool.read(spool.cursor, 30_000):
            await spool.advance(records[-1].end)
            drained += len(records)

        assert (drained, spool.is_empty, spool.corrupt) == (count, True, 0)
        assert await fill_up(spool) > 100

    async with adopted(small_disk / "spool") as spool:
        assert len(await read_all(spool)) == spool.events > 100
