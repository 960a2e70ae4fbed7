"""How far a spool is drained, in a file."""

from __future__ import annotations

import zlib
from pathlib import Path

from ray_tracking.stores.spool.disk import write_durably


def read_cursor(path: Path) -> int:
    """The cursor; 0 if it is missing or is none."""
    try:
        line = path.read_bytes()
        cursor = int(line[:20])
    except (OSError, ValueError):
        return 0
    return cursor if line == _line(cursor) else 0


def write_cursor(path: Path, cursor: int) -> None:
    """
    Keep a cursor.

    Raises:
        OSError: The file holds the earlier one still, or it is not known which.
    """
    write_durably(path, _line(cursor))


def _line(cursor: int) -> bytes:
    # A cursor that is too large because a bit flipped would drop events: it has a checksum.
    digits = b"%020d" % cursor
    return b"%s %08x\n" % (digits, zlib.crc32(digits))
