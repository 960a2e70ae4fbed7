"""
What was read from the log and is not written yet.

Bounded in bytes, with an equal share for each stream, so that one that has to wait takes
no room from the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from ray_tracking.pipeline.append import Entry, Header, Kind
from ray_tracking.pipeline.flush import Where

#: What an entry takes beside its rows: the objects, and the header's columns.
_ENTRY_BYTES = 512
_EVENT_BYTES = 40


class _Read(NamedTuple):
    entry: Entry
    read_ms: int


def size_bytes(entry: Entry) -> int:
    """What an entry takes in memory, about."""
    return len(entry.body) + _EVENT_BYTES * entry.header.count + _ENTRY_BYTES


class Backlog:
    """
    Queues, one for each stream.

    Args:
        wheres: The streams.
        max_bytes: For all of them together.
    """

    def __init__(self, wheres: Iterable[Where], max_bytes: int) -> None:
        self._queues: dict[Where, deque[_Read]] = {where: deque() for where in wheres}
        self._bytes = dict.fromkeys(self._queues, 0)
        self._max_bytes = max_bytes
        self._share_bytes = max_bytes // max(1, len(self._queues))
        self.events = 0
        #: Entries that were ever added, and their events.
        self.added = self.added_events = 0

    @property
    def size_bytes(self) -> int:
        return sum(self._bytes.values())

    @property
    def room_bytes(self) -> int:
        """What all streams together may take beside what is there."""
        return max(0, self._max_bytes - self.size_bytes)

    @property
    def oldest_ms(self) -> int | None:
        """When the entry was read that waits longest."""
        return min((queue[0].read_ms for queue in self._queues.values() if queue), default=None)

    @property
    def oldest_received_ms(self) -> int | None:
        """When the event came in that waits longest, to its id's millisecond."""
        firsts = [
            read.entry.header.event_ids
            for queue in self._queues.values()
            for read in islice((r for r in queue if r.entry.header.count), 1)
        ]
        return min((int.from_bytes(ids[:6]) for ids in firsts), default=None)

    def has_room(self, where: Where) -> bool:
        """May more of this stream be read?"""
        return self._bytes[where] < self._share_bytes

    def add(self, where: Where, entry: Entry, now_ms: int) -> None:
        """An entry was read."""
        self._queues[where].append(_Read(entry, now_ms))
        self._bytes[where] += size_bytes(entry)
        self.events += entry.header.count
        self.added += 1
        self.added_events += entry.header.count

    def take(
        self, max_events: int, may_go: Callable[[Where, Header], bool] | None = None
    ) -> dict[Where, list[Entry]]:
        """
        The next flush: whole entries, in log order, up to so many events.

        The stream that waits longest comes first. No stream's part ends with a marker: a
        successor that started there could not compare the chain with anything.

        Args:
            max_events: The last entry may reach over it.
            may_go: Asked about each batch; what stands behind one that may not go, in the
                same stream, has to wait as well.
        """
        taken: dict[Where, list[Entry]] = {}
        events = 0
        for where in sorted((w for w, q in self._queues.items() if q), key=self._waiting_since):
            queue = self._queues[where]
            reads: list[_Read] = []
            while queue and events < max_events:
                header = queue[0].entry.header
                if may_go is not None and header.kind is Kind.BATCH and not may_go(where, header):
                    break
                reads.append(queue.popleft())
                events += header.count
            while reads and reads[-1].entry.header.kind is Kind.MARKER:
                queue.appendleft(reads.pop())
            if reads:
                taken[where] = [read.entry for read in reads]
        for where, entries in taken.items():
            self._bytes[where] -= sum(map(size_bytes, entries))
            self.events -= sum(entry.header.count for entry in entries)
        return taken

    def _waiting_since(self, where: Where) -> int:
        return self._queues[where][0].read_ms
