"""
Reads streams of the log into a backlog, and stands still where an entry is missing.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from ray_tracking import failpoints
from ray_tracking.actors.signal import Signal
from ray_tracking.clock import Clock
from ray_tracking.errors import LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import BadEntry, Entry, EntryId, Kind
from ray_tracking.pipeline.backlog import Backlog
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.flush import Where
from ray_tracking.pipeline.parked import Budget
from ray_tracking.pipeline.read_ahead import ReadAhead
from ray_tracking.pipeline.write import Follower, LogGap
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_reader import LogReader
from ray_tracking.stores.positions import PositionReader
from ray_tracking.tasks import wanted

_BLOCK_MS = 500
_DRAIN_BLOCK_MS = 20
#: While one stream has more and no room for it: no read can be woken when there is some.
_HELD_UP_BLOCK_MS = 50
_LOOK_AGAIN_MS = 1000
#: After so many the other tasks of this process have their turn.
_YIELD_EVENTS = 500
_BACKOFF = Backoff(first_s=0.1, longest_s=2.0)

log = structlog.get_logger("ray_tracking.writer")


class Reader:
    """
    Reads for as long as it lives, while there is room.

    Args:
        log_reader: Reads.
        event_log: Where gaps are reported.
        stored: What is committed; asked where a stream stands still.
        backlog: Takes what was read.
        budget: Charged with what was read, if it is.
        changed: Sent when something was read, or nothing is there to be read; waited for
            when there is no room.
        clock: Unix milliseconds, never going back.
        pause_s: How long to wait after a read that found all there is.
    """

    def __init__(
        self,
        log_reader: LogReader,
        event_log: EventLog,
        stored: PositionReader,
        backlog: Backlog,
        budget: Budget | None,
        changed: Signal,
        clock: Clock,
        pause_s: float,
    ) -> None:
        self._reader = log_reader
        self._log = event_log
        self._stored = stored
        self._backlog = backlog
        self._budget = budget
        self._changed = changed
        self._clock = clock
        self._pause_s = pause_s
        self._followers: dict[Where, Follower] = {}
        #: The last entry of each stream that was read and is no marker: as far as we store.
        self._read_to: dict[Where, EntryId] = {}
        #: Streams that stand at a gap, and what was found there.
        self._stuck: dict[Where, str] = {}
        self._unreported: set[Where] = set()
        self._look_again_ms = 0
        self._ahead = ReadAhead([])
        #: How often there was nothing to be read, or no room for it, in any stream.
        self.ends = 0
        #: Do not wait long for what may come.
        self.hurried = False
        #: Why nothing is read now.
        self.trouble: str | None = None

    @property
    def has_caught_up(self) -> bool:
        """Whether no stream is known to have more for which there is room."""
        return not any(
            where in self._followers and self._backlog.has_room(where)
            for where in self._ahead.behind
        )

    async def run(self, positions: dict[Where, EntryId]) -> None:
        """
        Read on from these positions.

        Args:
            positions: Up to where each stream is stored, kept so by the caller; moved on
                here where an operator has accepted a gap.
        """
        self._followers = {where: Follower(at) for where, at in positions.items()}
        self._read_to = dict(positions)
        self._ahead = ReadAhead(positions)
        attempt = 0
        while wanted():
            try:
                await self._look_at_gaps(positions)
                await self._read()
            except (LogUnavailable, BadEntry) as error:
                self.trouble = str(error)
                log.warning("log not read", reason=str(error))
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
            else:
                attempt = 0
                self.trouble = next(iter(self._stuck.values()), None)

    async def _read(self) -> None:
        open_to = [where for where in self._followers if self._backlog.has_room(where)]
        wait_ms = _DRAIN_BLOCK_MS if self.hurried else _BLOCK_MS
        if not open_to:
            self._end()
            await self._changed.wait(wait_ms)
            return
        reading = self._ahead.plan(open_to, self._backlog.room_bytes)
        if self._ahead.behind:
            wait_ms = min(wait_ms, _HELD_UP_BLOCK_MS)
        began_ms = self._clock()
        found = await self._reader.read(
            {where: self._followers[where].position for where in reading.wheres},
            max_entries=reading.max_entries,
            block_ms=wait_ms if reading.wait else None,
        )
        failpoints.reach("writer.read")
        self._ahead.learn(reading, found)
        followed = 0
        for where, entries in found.items():
            self._follow(where, entries)
            followed += sum(entry.header.count for entry in entries)
            if followed >= _YIELD_EVENTS:
                followed = 0
                self._changed.send()
                await asyncio.sleep(0)
        if found:
            self._changed.send()
        for text in self._reader.unreadable.values():
            raise BadEntry(text)  # the others have been read, and will be again
        if self._budget is not None:
            for where in reading.wheres:
                if where in self._followers and where not in self._ahead.behind:
                    self._budget.knows(where, began_ms)
        if not found and reading.wait:
            self._end()
        elif self._pause_s and not self._ahead.behind and not self.hurried:
            # A read costs the same for one entry as for hundreds.
            await asyncio.sleep(self._pause_s)

    def _end(self) -> None:
        self.ends += 1
        self._changed.send()

    def _follow(self, where: Where, entries: list[Entry]) -> None:
        follower = self._followers[where]
        now_ms = self._clock()
        try:
            for entry in entries:
                follower.accept(entry)
                if entry.header.kind is not Kind.MARKER:
                    self._read_to[where] = entry.id
                self._backlog.add(where, entry, now_ms)
                if self._budget is not None:
                    self._budget.spend(where, entry.header, now_ms=now_ms)
        except LogGap as gap:
            # Nothing is skipped: this stream stands still until an operator accepts the gap.
            text = f"lane {LANES[where[1]]}: {gap}"
            log.error("gap in the log", partition=where[0], reason=text)
            del self._followers[where]
            self._stuck[where] = text
            if self._budget is not None:
                self._budget.knows(where, None)
            self._unreported.add(where)

    async def _look_at_gaps(self, positions: dict[Where, EntryId]) -> None:
        """Report what was found, once; go on where an operator has accepted it."""
        for where in list(self._unreported):
            await self._log.report_gap(where[0], self._stuck[where])
            self._unreported.discard(where)
        if not self._stuck or self._clock() < self._look_again_ms:
            return
        self._look_again_ms = self._clock() + _LOOK_AGAIN_MS
        stored = await self._stored.read() or {}
        for where in list(self._stuck):
            passed = stored.get(where, positions[where])
            if passed > self._read_to[where]:
                positions[where] = self._read_to[where] = passed
                self._followers[where] = Follower(passed)
                self._ahead.behind.append(where)
                del self._stuck[where]
