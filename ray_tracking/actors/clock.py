"""The clocks that the actors hand to the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Unix time in milliseconds.
Clock = Callable[[], int]


def steady_clock() -> Clock:
    """
    Unix time that never goes back or jumps while this process lives.

    The wall clock is read once. Windows and rates would otherwise open or shut with
    every step that somebody sets it.
    """
    offset_ns = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset_ns) // 1_000_000
