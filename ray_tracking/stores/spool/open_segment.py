"""The segment that is being written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ray_tracking.stores.spool.disk import open_private, sync_directory, write_all


class OpenSegment:
    """
    A new and empty segment, whose name is on the disk.

    It takes the place of one of the same name. There is one when a segment was abandoned
    before anything was in it: the next has its name, but is not the file whose fsync failed.

    Args:
        path: Where it shall be.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.size_bytes = 0
        new = path.with_name("next.tmp")
        self._fd = open_private(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            new.rename(path)
            sync_directory(path.parent)
        except OSError:
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """
        Write and fsync.

        Raises:
            OSError: The segment must be abandoned.
        """
        write_all(self._fd, data)
        os.fdatasync(self._fd)
        self.size_bytes += len(data)

    def abandon(self) -> None:
        """
        Leave it as it was after the last good append.

        After an fsync that failed, the kernel takes its pages for written: another one
        would succeed, and mean nothing.
        """
        with contextlib.suppress(OSError):  # the next segment will say where this one ends
            os.ftruncate(self._fd, self.size_bytes)
        self.close()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # all that counts was fsynced
            os.close(self._fd)
