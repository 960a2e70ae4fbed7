"""How much may wait somewhere: events and bytes are both bounded."""

from __future__ import annotations

#: What waits in one process, at the most, whatever ``max_buffer_size`` allows in events.
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Room:
    """
    A bound on what waits.

    Args:
        max_events: How many events.
        max_bytes: And how large in all.
    """

    def __init__(self, max_events: int, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.events = 0
        self.size_bytes = 0

    def take(self, events: int, size_bytes: int) -> bool:
        """
        Let some in, if there is room for all of them.

        An empty room takes whatever comes: a batch larger than the bound would never fit.
        """
        if not self.fits(events, size_bytes):
            return False
        self.events += events
        self.size_bytes += size_bytes
        return True

    def fits(self, events: int, size_bytes: int = 0) -> bool:
        """Whether :meth:`take` would let them in."""
        return not self.events or (
            self.events + events <= self.max_events
            and self.size_bytes + size_bytes <= self.max_bytes
        )

    def leave(self, events: int, size_bytes: int) -> None:
        """They are through."""
        self.events -= events
        self.size_bytes -= size_bytes
