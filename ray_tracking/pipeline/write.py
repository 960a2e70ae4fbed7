"""
What a reader of the log may do next: is this the entry that follows, and is it time
to flush?

Ids are contiguous within an epoch, and an epoch's chain names the entry that stands
before its marker. Anything else is a gap: an acknowledged event may be missing, so the
reader stops there and says so. Nothing is skipped silently.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_tracking.errors import TrackingError
from ray_tracking.pipeline.append import Entry, EntryId, Kind
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode

_KIND_AT = {0: Kind.MARKER, 1: Kind.CHAIN}


class LogGap(TrackingError):
    """Entries are missing from the log between two that are there."""

    code = "log_gap"


class Follower:
    """
    Checks that entries of one stream follow each other.

    Args:
        position: The last entry that was read and accepted.
    """

    def __init__(self, position: EntryId) -> None:
        self.position = position
        #: The entry before a marker whose chain has not been read yet.
        self._before_marker: EntryId | None = None

    def accept(self, entry: Entry) -> None:
        """
        Move on by one entry.

        Raises:
            LogGap: If this is not the entry that follows; the position stays.
        """
        last, new = self.position, entry.id
        kind = entry.header.kind
        fits = kind is _KIND_AT.get(new.seq, Kind.BATCH)
        if new.epoch == last.epoch:
            fits = fits and new.seq == last.seq + 1
        else:
            fits = fits and new.epoch > last.epoch and new.seq == 0
        if fits and kind is Kind.CHAIN and self._before_marker is not None:
            fits = entry.header.previous == str(self._before_marker)
        if not fits:
            raise LogGap(
                f"the log has {new} ({kind.name.lower()}) where the successor of {last} belongs"
            )
        if kind is Kind.MARKER:
            # Of several markers in a row all but the last were given up; the chain names
            # what stands before the first.
            self._before_marker = self._before_marker or last
        elif kind is Kind.CHAIN:
            self._before_marker = None
        self.position = new


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """When what was read is written."""

    max_events: int = 1000
    #: How long an event waits for company at most, while batches are to be filled.
    max_age_ms: int = 100
    #: The same in ``HYBRID``.
    hybrid_age_ms: int = 50
    #: How long after its receipt an event is written at the latest, while a burst comes in; 0 to
    #: write as soon as at other times.
    burst_delay_ms: int = 0
    max_queue_bytes: int = 32 * 1024 * 1024

    def linger_ms(self, mode: Mode, level: Level) -> int:
        """How long what was read waits for company; not at all where everything must out."""
        if mode is Mode.REALTIME or level is Level.EMERGENCY:
            return 0
        shorter = min(self.hybrid_age_ms, self.max_age_ms)
        return self.max_age_ms if mode is Mode.BATCH else shorter

    def delay_ms(self, mode: Mode) -> int:
        """How old an event may become while a burst comes in."""
        return self.burst_delay_ms if mode is Mode.BATCH else 0

    @staticmethod
    def wait_ms(events: int, age_ms: float, enough: int, linger_ms: float) -> float:
        """
        How long to wait with the next flush; 0 when it is due.

        Args:
            events: How many are waiting.
            age_ms: How long the oldest has waited here.
            enough: How many make a flush.
            linger_ms: How long it may wait for that many.
        """
        return 0.0 if events >= enough else max(0.0, linger_ms - age_ms)
