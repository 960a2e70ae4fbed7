"""
How much to read from the log next, and of which streams.

The server bounds a read in entries of each stream, and an entry may hold one event or a
mebibyte of them. So the size of an entry is learned from those that came, and streams that
have more than fits into one read get their turn one after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ray_tracking.pipeline.append import Entry
from ray_tracking.pipeline.backlog import size_bytes
from ray_tracking.pipeline.flush import Where


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """How large one read may be."""

    max_bytes: int = 4 * 1024 * 1024
    #: Each entry costs some time, however small it is.
    max_entries: int = 256
    #: What an entry is taken to have before any was seen: as much as one can.
    first_entry_bytes: int = 1024 * 1024


class Reading(NamedTuple):
    """The next read."""

    wheres: list[Where]
    #: Of each stream.
    max_entries: int
    #: Whether to wait for the first entry: nobody is known to have one.
    wait: bool


class ReadAhead:
    """
    Plans reads.

    Args:
        wheres: The streams. Each may have a backlog.
        policy: The bounds.
    """

    def __init__(self, wheres: Iterable[Where], policy: ReadPolicy | None = None) -> None:
        self._policy = policy or ReadPolicy()
        #: Streams that may have more, in turn.
        self.behind = list(wheres)
        self._entry_bytes = self._policy.first_entry_bytes

    def plan(self, open_to: Collection[Where], room_bytes: int | None = None) -> Reading:
        """
        What to read next.

        Args:
            open_to: The streams whose queues have room; at least one.
            room_bytes: What all queues together have, if that is bounded. Where it is
                nothing, a stream that has not had its share gets one entry at a time.
        """
        max_bytes = self._policy.max_bytes
        if room_bytes is not None:
            max_bytes = min(max_bytes, room_bytes)
        entries = min(self._policy.max_entries, max(1, max_bytes // self._entry_bytes))
        behind = [where for where in self.behind if where in open_to]
        wheres = behind[:entries] or list(open_to)
        return Reading(wheres, max(1, entries // len(wheres)), wait=not behind)

    def learn(self, reading: Reading, found: Mapping[Where, list[Entry]]) -> None:
        """What came of it."""
        full = {where for where, entries in found.items() if len(entries) >= reading.max_entries}
        self.behind = [where for where in self.behind if where not in reading.wheres]
        self.behind += [where for where in reading.wheres if where in full]
        sizes = [size_bytes(entry) for entries in found.values() for entry in entries]
        if sizes:
            # Larger ones count at once, smaller ones by and by.
            self._entry_bytes = max(sum(sizes) // len(sizes), 3 * self._entry_bytes // 4)

    def revive(self, where: Where) -> None:
        """A stream that stood still goes on, and has something to read."""
        self.behind.append(where)
