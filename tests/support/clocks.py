"""A clock that a test can put forward."""

from __future__ import annotations

import time


class MovableClock:
    """Unix milliseconds: real time, and as much more as it was moved."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        return (time.monotonic_ns() + self._offset_ns) // 1_000_000

    def move(self, ms: int) -> None:
        """Put it forward."""
        self._offset_ns += ms * 1_000_000
