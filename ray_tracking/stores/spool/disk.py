"""Files that survive a crash as a whole or not at all, and are for nobody's eyes but ours."""

from __future__ import annotations

import os
from pathlib import Path


def open_private(path: str | Path, flags: int) -> int:
    """Open a file that only its owner may read, if it is made now."""
    return os.open(path, flags, 0o600)


def write_durably(path: Path, data: bytes) -> None:
    """
    Make this the content of a file: a crash leaves the old content or the new.

    Raises:
        OSError: It is the old content still, or it is not known which of them.
    """
    new = path.with_name(f"{path.name}.tmp")
    try:
        with open(new, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_all(fd: int, data: bytes) -> None:
    """
    Write all of it.

    Raises:
        OSError: Some of it may be written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync_directory(path: Path) -> None:
    """
    Make the names in a directory survive a power failure.

    Raises:
        OSError: They may not.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
