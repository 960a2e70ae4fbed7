"""Several processes and one directory: a spool outlives its process, and has one holder."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from ray_tracking.stores.spool import Record, Spool, orphans
from tests.unit.stores.spools import new_spool, read_all

#: Appends from several tasks and drains, and says of each append when it returned, of
#: each drain when it begins and when it is done.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from ray_tracking.stores.spool import Spool

directory, last = Path(sys.argv[1]), int(sys.argv[2])

async def append(spool, name):
    number = 0
    while True:
        number += 1
        payload = f"{name}:{number}:".encode() + bytes(number * 37 % 400)
        offset = await spool.append(payload, 1)
        print("appended", offset, f"{name}:{number}", flush=True)
        if number == last:
            os._exit(1)

async def drain(spool):
    while True:
        records = (await spool.read(spool.cursor, 20_000))[:-10]
        if records:
            print("draining", records[-1].end, flush=True)
            await spool.advance(records[-1].end)
            print("drained", records[-1].end, flush=True)
        await asyncio.sleep(0)

async def main():
    spool = await Spool.create(directory, max_bytes=1 << 30, segment_bytes=3000)
    print("spool", spool.id, flush=True)
    await asyncio.gather(drain(spool), *[append(spool, name) for name in "abcdefgh"])

asyncio.run(main())
"""

#: Holds a spool until its input ends.
HOLDER = """
import asyncio, sys
from pathlib import Path
from ray_tracking.stores.spool import Spool

async def main():
    spool = await Spool.create(Path(sys.argv[1]), max_bytes=1 << 30)
    await spool.append(b"one", 1)
    print("spool", spool.id, flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program; it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start_program(program: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_program
    for process in started:
        process.kill()
        process.communicate()


def told(output: IO[str] | None) -> list[list[str]]:
    """What a program said until it ended; a line that it did not finish was not said."""
    assert output is not None
    return [line.split() for line in output if line.endswith("\n")]


def first_lines(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    assert process.stdout is not None
    return [process.stdout.readline().split() for _ in range(count)]


@pytest.mark.parametrize("seed", range(8))
async def test_what_was_acknowledged_survives_kill_9(
    tmp_path: Path, start: Start, seed: int
) -> None:
    writer = start(WRITER, tmp_path, 0)
    said = first_lines(writer, random.Random(seed).randint(2, 1500))
    writer.kill()
    said += told(writer.stdout)
    assert writer.wait() == -9

    await assert_kept(tmp_path, said)


@pytest.mark.parametrize("last", [1, 2, 50])
async def test_what_was_acknowledged_survives_a_process_that_just_ends(
    tmp_path: Path, start: Start, last: int
) -> None:
    writer = start(WRITER, tmp_path, last)
    said = told(writer.stdout)
    assert writer.wait() == 1

    await assert_kept(tmp_path, said)


async def assert_kept(directory: Path, said: list[list[str]]) -> None:
    """Everything that was acknowledged and not drained is there, in order, and once."""
    assert await orphans(directory) == [said[0][1]]
    spool = await Spool.adopt(directory, said[0][1])
    assert spool is not None
    draining = [0, *[int(line[1]) for line in said if line[0] == "draining"]]
    drained = [0, *[int(line[1]) for line in said if line[0] == "drained"]]
    assert drained[-1] <= spool.cursor <= draining[-1]

    records = await read_all(spool)
    found = {record.offset: name(record) for record in records}
    for line in said:
        if line[0] == "appended" and int(line[1]) >= draining[-1]:
            assert found[int(line[1])] == line[2]
    assert [record.offset for record in records] == [
        spool.cursor,
        *[record.end for record in records[:-1]],
    ][: len(records)]
    assert (spool.events, spool.corrupt) == (len(records), 0)
    for writer in "abcdefgh":
        numbers = [int(text[2:]) for text in found.values() if text[0] == writer]
        assert numbers == [numbers[0] + index for index in range(len(numbers))]

    await spool.advance(spool.end)
    await spool.close()
    assert list_names(directory) == []


def name(record: Record) -> str:
    return record.payload.rsplit(b":", 1)[0].decode()


def list_names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_two_processes_cannot_hold_one_spool(tmp_path: Path, start: Start) -> None:
    holder = start(HOLDER, tmp_path)
    [[_, spool_id]] = first_lines(holder, 1)
    assert await orphans(tmp_path) == []
    assert await Spool.adopt(tmp_path, spool_id) is None

    holder.kill()
    holder.wait()
    assert await orphans(tmp_path) == [spool_id]
    spool = await Spool.adopt(tmp_path, spool_id)
    assert spool is not None
    assert [record.payload for record in await read_all(spool)] == [b"one"]
    await spool.close()


async def test_another_process_counts_for_the_limit(tmp_path: Path, start: Start) -> None:
    first_lines(start(HOLDER, tmp_path), 1)
    async with new_spool(tmp_path, max_bytes=100) as spool:
        await spool.append(bytes(100 - 16 - 19), 1)

        assert spool.end == 81


async def test_a_process_that_adopts_while_it_dies_leaves_the_spool_to_the_next(
    tmp_path: Path, start: Start
) -> None:
    """Adopted, half drained, killed, and adopted again."""
    adopter = f"""
import os
{WRITER.replace("async def main():", "async def unused():").replace("asyncio.run(main())", "")}
async def half():
    spool = await Spool.adopt(directory, sys.argv[3])
    records = await spool.read(spool.cursor, 300)
    await spool.advance(records[0].end)
    print("left", spool.events, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(half())
"""
    async with new_spool(tmp_path) as spool:
        for number in range(10):
            await spool.append(b"%d" % number, 1)
    for left in (9, 8, 7):
        assert told(start(adopter, tmp_path, 0, spool.id).stdout) == [["left", str(left)]]

    last = await Spool.adopt(tmp_path, spool.id)
    assert last is not None
    assert [record.payload for record in await read_all(last)] == [b"%d" % n for n in range(3, 10)]
    await last.close()
