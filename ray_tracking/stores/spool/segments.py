"""
The files of one spool, written and read by one thread.

A segment ends where the next one begins, whatever its file holds behind that: what a
write or an fsync that failed has left there, and could not be cut off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import structlog

from ray_tracking.stores.spool.cursor import read_cursor, write_cursor
from ray_tracking.stores.spool.disk import write_durably
from ray_tracking.stores.spool.frames import (
    Damage,
    Record,
    first_record,
    frame_bytes,
    header,
    is_cut_short,
    scan,
)
from ray_tracking.stores.spool.open_segment import OpenSegment

#: What is read at least, lest a small request miss the end of its only record.
_WINDOW_BYTES = 1024 * 1024

log = structlog.get_logger("ray_tracking.spool")


class Figures(NamedTuple):
    """
    A spool at one moment.

    ``cursor`` is where the drained ends and ``end`` where the fsynced ends, ``events``
    how many lie between, ``corrupt`` how much damage was met, and ``stored_bytes`` the
    size of the segments, of the first one's drained part too.
    """

    cursor: int
    end: int
    events: int
    corrupt: int
    stored_bytes: int


class Segments:
    """
    The segments and the cursor. The caller holds the spool's lock.

    Args:
        path: The spool.
        segment_bytes: A segment that is as large is closed.
    """

    def __init__(self, path: Path, segment_bytes: int) -> None:
        self._path = path
        self._segment_bytes = segment_bytes
        #: Where each segment begins, which is its name.
        self._starts: list[int] = []
        self._open: OpenSegment | None = None
        #: Where damage ends that was met, by where it begins.
        self._behind: dict[int, int] = {}
        self._cursor = self._end = self._events = self._corrupt = 0

    @property
    def figures(self) -> Figures:
        """How it stands."""
        stored_bytes = self._end - self._starts[0] if self._starts else 0
        return Figures(self._cursor, self._end, self._events, self._corrupt, stored_bytes)

    def recover(self) -> None:
        """
        Find what a process that died has left, to be read and not written to.

        Raises:
            OSError: It cannot be read.
        """
        self._starts = sorted(int(path.stem) for path in self._path.glob(f"{'[0-9]' * 20}.seg"))
        first, last = (self._starts[0], self._starts[-1]) if self._starts else (0, 0)
        if self._starts:
            self._end = last + self._file(last).stat().st_size
        # What was deleted is drained, even if the cursor does not say so any more.
        self._cursor = max(read_cursor(self._path / "cursor"), first)
        self._end = max(self._end, self._cursor)
        for item in self._walk(self._cursor, self._end):
            if isinstance(item, Record):
                self._events += item.events
            elif item.end == self._end and item.offset >= last:
                self._cut(last, item)
        self._keep_cursor()

    # -- writing -----------------------------------------------------------

    def write(self, group: Sequence[tuple[bytes, int]]) -> list[int]:
        """
        Append payloads with their numbers of events; their offsets, once they are fsynced.

        Raises:
            OSError: None of them is in the spool.
        """
        segment = self._open
        if segment is None or segment.size_bytes >= self._segment_bytes:
            segment = self._begin_segment()
        offsets: list[int] = []
        frames: list[bytes] = []
        end = self._end
        for payload, events in group:
            offsets.append(end)
            frames += header(payload, events, end), payload
            end += frame_bytes(payload)
        try:
            segment.append(b"".join(frames))
        except BaseException:
            segment.abandon()
            self._open = None
            raise
        self._end = end
        self._events += sum(events for _, events in group)
        return offsets

    def close(self) -> None:
        """Close the files."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _begin_segment(self) -> OpenSegment:
        segment = OpenSegment(self._file(self._end))
        self.close()
        self._open = segment
        if self._end not in self._starts[-1:]:
            self._starts.append(self._end)
        return segment

    # -- reading -----------------------------------------------------------

    def read(self, offset: int, max_bytes: int) -> list[Record]:
        """
        Records from an offset on, at least one if there is one; damage is passed over.

        Raises:
            OSError: They cannot be read.
        """
        records: list[Record] = []
        for segment, start, stop in self._parts(max(offset, self._cursor), self._end):
            data = self._read(segment, start, min(stop, start + max(max_bytes, _WINDOW_BYTES)))
            if first_record(data, start) is None:
                # Larger than that, or damaged: it takes the rest of the segment to know.
                data = self._read(segment, start, stop)
            for item in scan(data, start, stop):
                if isinstance(item, Damage):
                    if records:
                        break
                    self._pass_over(item)
                elif records and item.end - records[0].offset > max_bytes:
                    break
                else:
                    records.append(item)
            if records:
                break
        # There may be damage right at the cursor, with nothing before it to be drained.
        self.advance(self._cursor)
        return records

    def advance(self, offset: int) -> None:
        """
        Remember that everything before an offset is drained, and the damage right there.

        Raises:
            OSError: What lies between cannot be read. The cursor has not moved.
        """
        offset = min(offset, self._end)
        while offset in self._behind:
            offset = self._behind[offset]
        if offset > self._cursor:
            self._events -= self._events_until(offset)
            self._cursor = offset
            self._keep_cursor()

    def _events_until(self, offset: int) -> int:
        if offset == self._end:
            return self._events  # with those of records that were damaged since they were counted
        drained = self._walk(self._cursor, offset)
        return sum(item.events for item in drained if isinstance(item, Record))

    def _keep_cursor(self) -> None:
        """Delete what is drained and write the cursor, as far as the disk lets us."""
        try:
            # Deleting first: on a full disk it makes the room that the cursor needs.
            while self._starts and [*self._starts, self._end][1] <= self._cursor:
                self._file(self._starts[0]).unlink(missing_ok=True)
                del self._starts[0]
            write_cursor(self._path / "cursor", self._cursor)
        except OSError as error:
            # An adopter would drain some of it again, and the log knows what it has.
            log.warning("cursor of the spool not kept", spool=self._path.name, reason=str(error))
        if not self._starts:
            self.close()

    def _walk(self, start: int, stop: int) -> Iterator[Record | Damage]:
        for segment, begin, end in self._parts(start, stop):
            yield from scan(self._read(segment, begin, end), begin, end)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """What lies between two offsets: each segment, and from where to where in it."""
        for segment, end in pairwise([*self._starts, self._end]):
            if max(segment, start) < min(end, stop):
                yield segment, max(segment, start), min(end, stop)

    def _read(self, segment: int, start: int, stop: int) -> bytes:
        with self._file(segment).open("rb") as file:
            file.seek(start - segment)
            return file.read(stop - start)

    def _file(self, segment: int) -> Path:
        return self._path / f"{segment:020}.seg"

    # -- damage ------------------------------------------------------------

    def _cut(self, segment: int, tail: Damage) -> None:
        """Cut off what is behind the last whole record."""
        log.warning("tail of the spool cut off", spool=self._path.name, offset=tail.offset)
        # What was cut short was never acknowledged. Anything else may have been.
        if not is_cut_short(tail.data):
            self._set_aside(tail)
        self._end = tail.offset
        with contextlib.suppress(OSError):  # then the next to adopt it does
            os.truncate(self._file(segment), tail.offset - segment)

    def _pass_over(self, damage: Damage) -> None:
        if damage.offset not in self._behind:
            self._behind[damage.offset] = damage.end
            self._set_aside(damage)

    def _set_aside(self, damage: Damage) -> None:
        spool, offset = self._path.name, damage.offset
        copy = self._path.parent / "corrupt" / f"{spool}-{offset}.bin"
        try:
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            write_durably(copy, damage.data)
        except OSError as error:
            log.error("damage in the spool cannot be copied", spool=spool, reason=str(error))
        self._corrupt += 1
        log.error("damage in the spool", spool=spool, offset=offset, end=damage.end, copy=str(copy))
