"""A spool: what was appended is on the disk, is read in order, and goes when it is drained."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_tracking.stores.spool import MAX_PAYLOAD_BYTES, Record, Spool, SpoolFull, orphans
from ray_tracking.stores.spool import directory as spools_directory
from ray_tracking.stores.spool.segments import Segments
from tests.support.waiting import eventually
from tests.unit.stores.spools import (
    HEADER_BYTES,
    MIB,
    adopted,
    fill,
    held_up,
    new_spool,
    payloads,
    read_all,
    segment_files,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def modes_below(directory: Path) -> dict[Path, str]:
    """The permissions of a directory and all that is in it."""
    return {path: oct(path.stat().st_mode & 0o777) for path in [directory, *directory.rglob("*")]}


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


# -- appending -------------------------------------------------------------


async def test_an_append_says_where_its_record_is(directory: Path) -> None:
    async with new_spool(directory) as spool:
        assert (spool.cursor, spool.end, spool.events, spool.is_empty) == (0, 0, 0, True)
        one = await spool.append(b"one", 3)
        two = await spool.append(b"", 0)

        assert await spool.read(one, 1000) == [Record(0, 19, 3, b"one"), Record(19, 35, 0, b"")]
        assert await spool.read(two, 1000) == [Record(19, 35, 0, b"")]
        assert await spool.read(spool.end, 1000) == []
        assert (spool.end, spool.size_bytes, spool.events) == (35, 35, 3)
        assert not spool.is_empty


async def test_appends_that_wait_for_an_fsync_share_the_next_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        with held_up(monkeypatch) as gate:
            first = asyncio.create_task(spool.append(b"first", 1))
            await eventually(lambda: gate.calls)
            others = [asyncio.create_task(spool.append(b"%d" % n, 1)) for n in range(100)]
            await asyncio.sleep(0)  # each has come to its queue
            gate.open()
            await asyncio.gather(first, *others)

        assert gate.calls == 2
        assert await payloads(spool) == [b"first", *[b"%d" % n for n in range(100)]]


async def test_nothing_is_acknowledged_or_read_before_its_fsync(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"before", 1)
        await spool.advance(spool.end)
        with held_up(monkeypatch) as gate:
            append = asyncio.create_task(spool.append(b"now", 1))
            await eventually(lambda: gate.calls)
            await asyncio.sleep(0)

            # Only the fsync is missing.
            assert list(map(os.path.getsize, segment_files(directory / spool.id))) == [19]
            assert not append.done()
            assert (spool.cursor, spool.end, spool.events) == (22, 22, 0)
            assert not spool.is_empty
            reading = asyncio.create_task(spool.read(22, 1000))
            gate.open()
            await append
            assert [record.payload for record in await reading] == [b"now"]


async def test_the_order_is_that_of_the_calls(directory: Path) -> None:
    async with new_spool(directory, segment_bytes=1000) as spool:
        sent = [b"%d" % n * (n % 50) for n in range(500)]
        offsets = await asyncio.gather(*[spool.append(payload, 1) for payload in sent])

        assert offsets == sorted(offsets)
        assert await payloads(spool) == sent


async def test_the_order_stays_while_the_other_spools_are_counted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_tracking.stores.spool.spool._OTHERS_AGE_S", 0)
    async with new_spool(directory) as spool:
        sent = [b"%d" % n for n in range(100)]
        await asyncio.gather(*[spool.append(payload, 1) for payload in sent])

        assert await payloads(spool) == sent


async def test_an_append_whose_caller_has_gone_disturbs_nobody(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory) as spool:
        with held_up(monkeypatch) as gate:
            appends = [asyncio.create_task(spool.append(b"%d" % n, 1)) for n in range(3)]
            await eventually(lambda: gate.calls)
            appends[0].cancel()
            appends[1].cancel()
            gate.open()
            await asyncio.wait(appends)

        assert appends[2].result() == 2 * (HEADER_BYTES + 1)
        assert spool.size_bytes == 3 * (HEADER_BYTES + 1)


async def test_what_is_too_large_for_a_record_is_a_mistake_of_the_caller(directory: Path) -> None:
    async with new_spool(directory) as spool:
        with pytest.raises(ValueError, match="no record"):
            await spool.append(bytes(MAX_PAYLOAD_BYTES + 1), 1)
        with pytest.raises(ValueError, match="no record"):
            await spool.append(b"", 2**32)

        await spool.append(bytes(MAX_PAYLOAD_BYTES), 2**32 - 1)
        assert await payloads(spool) == [bytes(MAX_PAYLOAD_BYTES)]


async def test_many_large_records_at_once_come_through(directory: Path) -> None:
    async with new_spool(directory) as spool:
        sent = [bytes([n]) * 1_000_000 for n in range(20)]
        await asyncio.gather(*[spool.append(payload, 1) for payload in sent])

        assert await payloads(spool) == sent
        assert len(segment_files(directory / spool.id)) == 2


async def test_nobody_else_may_look_into_the_files(directory: Path, open_umask: None) -> None:
    async with new_spool(directory, segment_bytes=1) as spool:
        for n in range(3):
            await spool.append(b"%d" % n, 1)
        segment_files(directory / spool.id)[1].write_bytes(b"damaged record...")
        await read_all(spool)
        await spool.advance(HEADER_BYTES + 1)

    modes = modes_below(directory)
    assert {path.suffix or path.name for path in modes} >= {".seg", "cursor", "lock", ".bin"}
    assert {path: mode for path, mode in modes.items() if path.is_file() and mode != "0o600"} == {}
    assert {path: mode for path, mode in modes.items() if path.is_dir() and mode != "0o700"} == {}


async def test_the_name_of_a_new_spool_survives_a_power_failure(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    synced: list[int] = []

    def remembered(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", remembered)
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)

    path = directory / spool.id
    assert synced == [inode(directory.parent), inode(directory), inode(path)]


def inode(path: Path) -> int:
    return path.stat().st_ino


# -- reading ---------------------------------------------------------------


async def test_a_read_is_as_large_as_asked_for_but_one_record_always_comes(
    directory: Path,
) -> None:
    async with new_spool(directory, segment_bytes=400) as spool:
        for _ in range(20):
            await spool.append(bytes(84), 1)

        assert [len(await spool.read(0, size)) for size in (1, 99, 100, 199, 200)] == [
            1,
            1,
            1,
            1,
            2,
        ]
        assert len(await read_all(spool, max_bytes=1)) == 20
        assert len(await read_all(spool, max_bytes=250)) == 20


async def test_a_small_read_of_a_large_spool_is_small(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report asks for the first record every second."""
    async with new_spool(directory) as spool:
        await asyncio.gather(*[spool.append(bytes(100_000), 1) for _ in range(100)])
        sizes: list[int] = []
        read = Segments._read

        def counting(self: Segments, segment: int, start: int, stop: int) -> bytes:
            sizes.append(stop - start)
            return read(self, segment, start, stop)

        monkeypatch.setattr(Segments, "_read", counting)
        assert len(await spool.read(0, 1)) == 1
        assert sum(sizes) <= MIB


async def test_reading_does_not_drain(directory: Path) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)

        assert await read_all(spool) == await read_all(spool)
        assert spool.events == 1


# -- draining --------------------------------------------------------------


async def test_a_segment_goes_when_all_of_it_is_drained(directory: Path) -> None:
    async with new_spool(directory, segment_bytes=200) as spool:
        for n in range(6):
            await spool.append(bytes(84), n)
        path = directory / spool.id
        assert [file.name for file in segment_files(path)] == [
            f"{offset:020}.seg" for offset in (0, 200, 400)
        ]

        await spool.advance(100)
        assert len(segment_files(path)) == 3
        assert (spool.cursor, spool.size_bytes, spool.events) == (100, 500, 15)
        await spool.advance(300)
        assert [file.name for file in segment_files(path)] == [
            f"{offset:020}.seg" for offset in (200, 400)
        ]
        await spool.advance(600)
        assert segment_files(path) == []
        assert (spool.cursor, spool.size_bytes, spool.events) == (600, 0, 0)
        assert spool.is_empty


async def test_offsets_go_on_where_they_were_after_everything_was_drained(directory: Path) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)
        await spool.advance(spool.end)

        assert await spool.append(b"two", 2) == 19
        assert await spool.read(0, 1000) == [Record(19, 38, 2, b"two")]
        assert (spool.cursor, spool.end, spool.events) == (19, 38, 2)


async def test_the_cursor_never_goes_back_or_too_far(directory: Path) -> None:
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)
        await spool.append(b"two", 2)
        await spool.advance(19)
        await spool.advance(0)
        assert (spool.cursor, spool.events) == (19, 2)
        assert [record.payload for record in await spool.read(0, 1000)] == [b"two"]

        await spool.advance(1_000_000)
        assert (spool.cursor, spool.end) == (38, 38)


async def test_the_cursor_is_there_for_the_next_process(directory: Path) -> None:
    async with new_spool(directory) as spool:
        for n in range(3):
            await spool.append(b"%d" % n, n)
        await spool.advance(17)

    async with adopted(directory) as spool:
        assert (spool.cursor, spool.end, spool.events) == (17, 51, 3)
        assert await payloads(spool) == [b"1", b"2"]


async def test_draining_while_events_come_in_loses_and_doubles_nothing(directory: Path) -> None:
    async with new_spool(directory, segment_bytes=500) as spool:
        sent = [b"%d" % n for n in range(300)]
        drained: list[bytes] = []

        async def drain() -> None:
            while len(drained) < len(sent):
                for record in await spool.read(spool.cursor, 200):
                    drained.append(record.payload)
                    await spool.advance(record.end)

        await asyncio.gather(drain(), *[spool.append(payload, 1) for payload in sent])

        assert drained == sent
        assert (spool.is_empty, spool.events) == (True, 0)


# -- limits ----------------------------------------------------------------


async def test_a_full_spool_says_so_and_takes_events_again_when_it_is_drained(
    directory: Path,
) -> None:
    async with new_spool(directory, max_bytes=300, segment_bytes=100) as spool:
        for _ in range(3):
            await spool.append(bytes(84), 1)
        with pytest.raises(SpoolFull, match="300 of 300 bytes"):
            await spool.append(b"", 1)
        assert (spool.end, spool.events) == (300, 3)

        await spool.advance(100)
        assert await spool.append(bytes(84), 1) == 300


async def test_what_waits_in_memory_counts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_spool(directory, max_bytes=300) as spool:
        with held_up(monkeypatch) as gate:
            first = asyncio.create_task(spool.append(bytes(84), 1))
            await eventually(lambda: gate.calls)
            second = asyncio.create_task(spool.append(bytes(84), 1))
            await asyncio.sleep(0)  # it is in the queue
            with pytest.raises(SpoolFull, match="200 of 300 bytes"):
                await spool.append(bytes(85), 1)
            third = asyncio.create_task(spool.append(bytes(84), 1))
            gate.open()
            await asyncio.gather(first, second, third)


async def test_the_spools_of_a_node_share_one_limit(directory: Path) -> None:
    await fill(directory, [bytes(84)])
    async with (
        new_spool(directory, max_bytes=300) as ours,
        new_spool(directory, max_bytes=300) as theirs,
    ):
        await theirs.append(bytes(84), 1)
        with pytest.raises(SpoolFull, match="200 of 300 bytes"):
            await ours.append(bytes(85), 1)
        await ours.append(bytes(84), 1)

        await theirs.advance(theirs.end)

        async def has_room() -> bool:
            try:
                await ours.append(bytes(84), 1)
            except SpoolFull:
                return False
            return True

        await eventually(has_room)


async def test_the_others_are_not_counted_with_each_append(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []

    def count(directory: Path, but: str) -> int:
        counted.append(but)
        return 0

    monkeypatch.setattr("ray_tracking.stores.spool.spool.stored_bytes", count)
    monkeypatch.setattr("ray_tracking.stores.spool.spool._OTHERS_AGE_S", 3600)
    async with new_spool(directory) as spool:
        await asyncio.gather(*[spool.append(b"x", 1) for _ in range(50)])

        assert counted == [spool.id]


# -- the end ---------------------------------------------------------------


async def test_closing_writes_what_is_queued_and_refuses_the_rest(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_tracking.stores.spool.group_commit._GROUP_BYTES", 1)  # one each
    spool = await Spool.create(directory, max_bytes=10_000)
    with held_up(monkeypatch) as gate:
        queued = [asyncio.create_task(spool.append(b"0", 1))]
        await eventually(lambda: gate.calls)
        queued += [asyncio.create_task(spool.append(b"%d" % n, 1)) for n in range(1, 5)]
        await asyncio.sleep(0)
        closing = [asyncio.create_task(spool.close()) for _ in range(2)]
        await asyncio.sleep(0)
        late = asyncio.create_task(spool.append(b"late", 1))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*queued, *closing)

    with pytest.raises(SpoolFull, match="closed"):
        await late
    async with adopted(directory) as left:
        assert await payloads(left) == [b"%d" % n for n in range(5)]


async def test_an_empty_spool_is_removed_when_it_is_closed(directory: Path) -> None:
    spool = await Spool.create(directory, max_bytes=1000)
    await spool.append(b"one", 1)
    await spool.advance(spool.end)
    await spool.close()

    assert names_in(directory) == []
    assert await Spool.adopt(directory, spool.id) is None


async def test_nobody_gets_the_lock_of_a_spool_while_there_are_files_in_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = await Spool.create(directory, max_bytes=1000)
    await spool.append(b"one", 1)
    await spool.advance(spool.end)
    unlink = Path.unlink
    seen: list[str] = []

    def looking(self: Path, missing_ok: bool = False) -> None:
        assert spools_directory.lock_spool(directory / spool.id) is None
        seen.append(self.name)
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", looking)
        await spool.close()

    assert seen == ["cursor", "lock"]
    assert names_in(directory) == []


async def test_an_orphan_is_gone_when_its_adopter_has_drained_it(directory: Path) -> None:
    await fill(directory, [b"one", b"two"])
    [spool_id] = await orphans(directory)
    spool = await Spool.adopt(directory, spool_id)
    assert spool is not None
    await spool.close()  # for now
    spool = await Spool.adopt(directory, spool_id)
    assert spool is not None
    assert spool.events == 3
    await spool.advance(spool.end)
    await spool.close()

    assert names_in(directory) == []


async def test_an_adopted_spool_takes_no_appends(directory: Path) -> None:
    """An offset that the log has seen must not be given to another record."""
    await fill(directory, [b"one"])
    async with adopted(directory) as spool:
        with pytest.raises(RuntimeError, match="takes no appends"):
            await spool.append(b"two", 1)


# -- who holds it ----------------------------------------------------------


async def test_a_spool_has_one_holder(directory: Path) -> None:
    async with new_spool(directory) as spool:
        assert await orphans(directory) == []
        assert await Spool.adopt(directory, spool.id) is None

    assert await orphans(directory) == [spool.id]
    async with adopted(directory):
        assert await orphans(directory) == []
        assert await Spool.adopt(directory, spool.id) is None


async def test_there_are_no_orphans_without_a_directory(directory: Path) -> None:
    assert await orphans(directory) == []
    assert await Spool.adopt(directory, "0" * 32) is None


async def test_only_spools_are_orphans(directory: Path) -> None:
    (directory / "corrupt").mkdir(parents=True)
    (directory / "lost+found").mkdir()

    assert await orphans(directory) == []


async def test_a_spool_that_was_just_being_made_is_an_orphan_too(directory: Path) -> None:
    """Its process died before there was a lock."""
    (directory / ("0" * 32)).mkdir(parents=True)
    [spool_id] = await orphans(directory)
    spool = await Spool.adopt(directory, spool_id)
    assert spool is not None
    assert spool.is_empty
    await spool.close()

    assert names_in(directory) == []


@pytest.mark.parametrize("made_again", [False, True])
async def test_a_spool_that_its_owner_removes_meanwhile_is_not_adopted(
    directory: Path, monkeypatch: pytest.MonkeyPatch, made_again: bool
) -> None:
    """The adopter has opened the lock file already, and gets the lock of a file without name."""
    path = await fill(directory, [b"one"])
    flock = spools_directory.fcntl.flock

    def after_its_removal(file: object, operation: int) -> None:
        monkeypatch.setattr(spools_directory.fcntl, "flock", flock)
        spools_directory.remove_spool(path)
        if made_again:
            path.mkdir()
            (path / "lock").touch()
        flock(file, operation)

    monkeypatch.setattr(spools_directory.fcntl, "flock", after_its_removal)

    assert await Spool.adopt(directory, path.name) is None


async def test_an_adopter_that_comes_while_a_spool_is_removed_keeps_what_it_holds(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last file and the directory there is a moment when anybody may lock it."""
    spool = await Spool.create(directory, max_bytes=1000)
    path = directory / spool.id
    rmdir = Path.rmdir
    locks = []

    def after_an_adopter(self: Path) -> None:
        locks.append(spools_directory.lock_spool(path))
        rmdir(self)

    monkeypatch.setattr(Path, "rmdir", after_an_adopter)
    await spool.close()
    monkeypatch.undo()

    assert await orphans(directory) == []
    locks[0].close()
    assert await orphans(directory) == [spool.id]


async def test_a_new_spool_that_was_taken_for_an_orphan_is_left_to_the_adopter(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_spool = spools_directory.lock_spool
    taken = []

    def too_late(path: Path) -> spools_directory.Lock | None:
        if not taken:
            taken.append(lock_spool(path))
        return lock_spool(path)

    monkeypatch.setattr(spools_directory, "lock_spool", too_late)
    async with new_spool(directory) as spool:
        await spool.append(b"one", 1)

        assert len(names_in(directory)) == 2
    taken[0].close()
