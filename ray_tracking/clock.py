"""The clock that actors and HTTP handlers read, and hand to the pipeline."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Unix time in milliseconds.
Clock = Callable[[], int]


def steady_clock() -> Clock:
    """
    Unix time that never goes back or jumps while this process lives.

    The wall clock is read once. Windows and rates would otherwise open or shut, and the
    times of receipt that they go by jump, with every step that somebody sets it.
    """
    return _ahead_of_monotonic(_offset_ns())


def node_clock(directory: Path) -> Clock:
    """
    The same for all processes of a node that name the same directory: the first of them
    reads the wall clock, and those that come while any of them lives go by its reading.

    One that is started again after the wall clock was set would otherwise judge events by
    another time than those that live on.

    Args:
        directory: Gets the file ``clock``, whose lock says that somebody lives. It is made
            where it is missing.

    Raises:
        OSError: The directory cannot be made or written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Kept open, and so locked, until this process ends.
    file = os.open(directory / "clock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.pwrite(file, str(_offset_ns()).encode(), 0)
    # Not at once from exclusive to shared: another may come between, and write what it reads.
    fcntl.flock(file, fcntl.LOCK_SH)
    return _ahead_of_monotonic(int(os.pread(file, 32, 0)))


class ClockSteps:
    """
    Notices when somebody sets the wall clock back.

    Args:
        least_s: A step of less is none: the two clocks are not read at the same instant.
    """

    def __init__(self, least_s: float = 1.0) -> None:
        self._least_ns = int(least_s * 1e9)
        self._offset_ns = _offset_ns()

    def back_s(self) -> float:
        """Seconds that the wall clock was set back by since this was last said; mostly 0."""
        offset_ns = _offset_ns()
        back_ns = self._offset_ns - offset_ns
        if -self._least_ns < back_ns < self._least_ns:
            return 0.0
        self._offset_ns = offset_ns
        return max(0.0, back_ns / 1e9)


def _offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


def _ahead_of_monotonic(offset_ns: int) -> Clock:
    return lambda: (time.monotonic_ns() + offset_ns) // 1_000_000
