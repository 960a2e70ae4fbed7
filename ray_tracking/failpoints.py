"""
Places where a process can be told to die, for the tests of what survives it.

Off unless a directory is set (``failpoints_dir``). In it, an empty file with the name of
a point kills the first process that comes by, and is gone then; a file with some bytes in
it stays, and kills every process that comes by with those bytes in its hands.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Every place, in the order in which an event comes by.
POINTS = (
    "ingress.received",
    "ingress.answered",
    "spool.written",
    "shard.submitted",
    "shard.sending",
    "shard.sent",
    "shard.committed",
    "takeover.marked",
    "takeover.chained",
    "takeover.read",
    "drain.submitted",
    "drain.advancing",
    "writer.taken_over",
    "writer.read",
    "writer.moved",
    "writer.copied",
    "writer.committed",
    "writer.letter",
    "roller.counted",
    "roller.committed",
    "replay.counted",
    "replay.swapping",
    "replay.swapped",
    "retention.renamed",
    "retention.sealed",
    "retention.detached",
)

_directory: Path | None = None


def arm(directory: Path | None) -> None:
    """Watch a directory from now on; None for none."""
    global _directory
    _directory = directory


def reach(point: str, *data: bytes) -> None:
    """
    Die here, if somebody has asked for it.

    Args:
        point: One of :data:`POINTS`.
        data: What is in hand.
    """
    if _directory is not None:
        _reach(_directory / point, data)


def _reach(path: Path, data: tuple[bytes, ...]) -> None:
    try:
        wanted = path.read_bytes()
        if not wanted:
            path.unlink()  # of two processes only one gets this far
        elif not any(wanted in piece for piece in data):
            return
    except FileNotFoundError:
        return
    os._exit(137)
