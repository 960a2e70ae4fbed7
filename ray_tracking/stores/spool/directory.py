"""
The directory that the spools of a node share: who holds which, and how large they are.

A flock on a spool's ``lock`` file says that its process lives. The kernel drops it with
the process, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import uuid
from io import BufferedWriter
from pathlib import Path

from ray_tracking.stores.spool.disk import open_private, sync_directory

_SPOOL_ID = "[0-9a-f]" * 32

#: Closing it gives the spool up.
Lock = BufferedWriter


def make_spool(directory: Path) -> tuple[Path, Lock]:
    """
    A new and empty spool, and the lock on it.

    Raises:
        OSError: It cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_directory(directory.parent)
    while True:
        path = directory / uuid.uuid4().hex
        path.mkdir(mode=0o700)
        # Until here it looked like an orphan, and is left to whoever took it for one.
        if (lock := lock_spool(path)) is not None:
            sync_directory(directory)
            return path, lock


def lock_spool(path: Path) -> Lock | None:
    """
    The lock on a spool; None when somebody else holds it, or the spool has gone.

    Raises:
        OSError: It cannot be locked.
    """
    try:
        lock = open(path / "lock", "ab", opener=open_private)  # noqa: SIM115 (closed by the caller)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed the spool since the file was opened.
        if os.path.samestat(os.fstat(lock.fileno()), os.stat(path / "lock")):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def remove_spool(path: Path) -> None:
    """Remove a spool whose lock the caller holds, as far as the disk lets us."""
    with contextlib.suppress(OSError):
        # The lock last: who makes a new one after that has the lock on an empty spool, and
        # then the directory stays.
        for file in sorted(path.iterdir(), key=lambda file: file.name == "lock"):
            file.unlink()
        path.rmdir()


async def orphans(directory: Path) -> list[str]:
    """The ids of the spools whose process has died, as far as can be seen from outside."""
    return await asyncio.to_thread(_orphans, directory)


def _orphans(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob(_SPOOL_ID) if not _is_locked(path))


def _is_locked(path: Path) -> bool:
    try:
        with open(path / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def stored_bytes(directory: Path, but: str) -> int:
    """How large the segments of all spools but one are together."""
    size = 0
    for path in directory.glob(f"{_SPOOL_ID}/*.seg"):
        if path.parent.name != but:
            with contextlib.suppress(OSError):  # drained and deleted by now
                size += path.stat().st_size
    return size
