"""Spools on a real disk: what the tests fill them with, and how they read them."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from ray_tracking.stores.spool import Record, Spool, orphans

MIB = 1024 * 1024
#: Of a frame, before its payload.
HEADER_BYTES = 16


@asynccontextmanager
async def new_spool(
    directory: Path, *, max_bytes: int = 64 * MIB, segment_bytes: int = 16 * MIB
) -> AsyncIterator[Spool]:
    """A spool of this process, closed at the end and left where it is."""
    spool = await Spool.create(directory, max_bytes=max_bytes, segment_bytes=segment_bytes)
    try:
        yield spool
    finally:
        await spool.close(remove_if_empty=False)


@asynccontextmanager
async def adopted(directory: Path) -> AsyncIterator[Spool]:
    """The only orphan, adopted, and given up again."""
    [spool_id] = await orphans(directory)
    spool = await Spool.adopt(directory, spool_id)
    assert spool is not None
    try:
        yield spool
    finally:
        await spool.close(remove_if_empty=False)


async def fill(directory: Path, payloads: list[bytes], *, segment_bytes: int = 16 * MIB) -> Path:
    """An orphan with one record for each payload, the n-th with n + 1 events; its path."""
    async with new_spool(directory, segment_bytes=segment_bytes) as spool:
        for index, payload in enumerate(payloads):
            await spool.append(payload, index + 1)
        return directory / spool.id


async def read_all(spool: Spool, max_bytes: int = MIB) -> list[Record]:
    """Everything from the cursor on; nothing is drained by it."""
    records: list[Record] = []
    offset = spool.cursor
    while found := await spool.read(offset, max_bytes):
        records += found
        offset = found[-1].end
    return records


async def payloads(spool: Spool) -> list[bytes]:
    """The payloads of everything from the cursor on."""
    return [record.payload for record in await read_all(spool)]


def segment_files(spool: Path) -> list[Path]:
    """The segments of a spool, in order."""
    return sorted(spool.glob("*.seg"))


class Gate:
    """Holds up every ``os.fdatasync`` until it is opened, and counts them."""

    def __init__(self, fdatasync: Callable[[int], None]) -> None:
        self._fdatasync = fdatasync
        self._open = threading.Event()
        self.calls = 0

    def __call__(self, fd: int) -> None:
        self.calls += 1
        assert self._open.wait(60)
        self._fdatasync(fd)

    def open(self) -> None:
        self._open.set()


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """While this lasts, no append comes to its end unless the gate is opened."""
    gate = Gate(os.fdatasync)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", gate)
        try:
            yield gate
        finally:
            gate.open()
