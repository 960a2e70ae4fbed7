"""How long work will wait for its turn, by what the last took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: What the work before counts for, each time that some is done.
_MEMORY = 0.9


class Pace:
    """
    Work that is done one piece after another, and what of it still waits.

    Args:
        longest_wait_s: Who would wait for longer had better come again.
    """

    def __init__(self, longest_wait_s: float) -> None:
        self._longest_wait_s = longest_wait_s
        self._took_s = 0.0
        self._done_bytes = 0.0
        self.waiting_bytes = 0

    def note(self, size_bytes: int, took_s: float) -> None:
        """A piece of work is done."""
        self._took_s = _MEMORY * self._took_s + took_s
        self._done_bytes = _MEMORY * self._done_bytes + size_bytes

    @property
    def wait_s(self) -> float:
        """How long a piece that came now would wait; 0 as long as nothing was measured."""
        if not self._done_bytes:
            return 0.0
        return self.waiting_bytes * self._took_s / self._done_bytes

    @property
    def too_long(self) -> bool:
        """Whether a piece that came now had better come again. Never when nothing waits."""
        return self.wait_s > self._longest_wait_s

    @contextmanager
    def waiting(self, size_bytes: int) -> Iterator[None]:
        """For as long as a piece waits or is worked on."""
        self.waiting_bytes += size_bytes
        try:
            yield
        finally:
            self.waiting_bytes -= size_bytes
