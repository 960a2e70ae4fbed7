"""
What shards must know of the spools: how old the events may be that still wait in one.

A spooled event is judged as of the time when it came in, so what was remembered then must
still be remembered. Each process that may spool reports, while it can reach the log, a
*floor*: no event in its spool came in before it. Expiry and trimming go up to the lowest
floor. A process reports while its spool is empty too, because once the log is out of
reach, when events begin to be spooled, it is too late to say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ray_tracking.pipeline.route import Submission

#: An event may be spooled so long after it came in: it has waited for its shard.
MARGIN_MS = 15_000
#: After the log was out of reach, everybody may take so long to report again.
SETTLE_MS = 10_000
#: A spool that nobody has reported for so long is given up: its node is gone, and with it
#: the events that were on its disk.
ABANDONED_MS = 600_000


#: Of one record, about.
_RECORD_EVENTS = 1000
_RECORD_BYTES = 4 * 1024 * 1024


def records(submissions: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    """The same events, in parts of which each is a record of a spool."""
    start = size_bytes = 0
    for place, submission in enumerate(submissions):
        full = place - start == _RECORD_EVENTS or size_bytes + submission.size_bytes > _RECORD_BYTES
        if full and place > start:
            yield submissions[start:place]
            start, size_bytes = place, 0
        size_bytes += submission.size_bytes
    if start < len(submissions):
        yield submissions[start:]


class SpoolReport(msgspec.Struct, frozen=True):
    """What a process says of a spool. Times are Unix milliseconds."""

    node: str
    floor_ms: int
    events: int
    size_bytes: int
    reported_ms: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SpoolReport).decode


def encode_report(report: SpoolReport) -> bytes:
    """As it stands beside the log."""
    return _encode(report)


def decode_reports(raw: Mapping[bytes, bytes]) -> dict[str, SpoolReport]:
    """All of them, by the id of the spool."""
    return {spool_id.decode(): _decode(value) for spool_id, value in raw.items()}


class SpoolWatch:
    """
    Follows the reports.

    Args:
        now_ms: Unix time by a clock that never goes back.
    """

    def __init__(self, now_ms: int) -> None:
        self.reports: dict[str, SpoolReport] = {}
        #: Since when each has said the same: it is not reported any more.
        self._same_since_ms: dict[str, int] = {}
        self._last_reading_ms = now_ms
        self._unread_since_ms: int | None = None
        self._settled_ms = 0

    def read(self, reports: Mapping[str, SpoolReport], now_ms: int) -> None:
        """The reports could be read."""
        if self._unread_since_ms is not None and not self._settled_ms:
            self._settled_ms = now_ms + SETTLE_MS
            self._same_since_ms.clear()  # nobody could report
        if self._settled_ms and now_ms >= self._settled_ms:
            self._unread_since_ms, self._settled_ms = None, 0
        self._same_since_ms = {
            spool_id: self._same_since_ms.get(spool_id, now_ms)
            if self.reports.get(spool_id) == report
            else now_ms
            for spool_id, report in reports.items()
        }
        self.reports = dict(reports)
        self._last_reading_ms = now_ms

    def unreadable(self) -> None:
        """The log is out of reach: spools are filling, and nobody can say so."""
        self._settled_ms = 0
        if self._unread_since_ms is None:
            self._unread_since_ms = self._last_reading_ms

    @property
    def abandoned(self) -> list[str]:
        """Spools of nodes that are gone, with events that nobody has drained."""
        return [
            spool_id
            for spool_id, report in self.reports.items()
            if report.events and not self._is_reported(spool_id)
        ]

    @property
    def stale(self) -> list[str]:
        """Empty spools that nobody has reported for long: they were removed unsaid."""
        return [
            spool_id
            for spool_id, report in self.reports.items()
            if not report.events and not self._is_reported(spool_id)
        ]

    def floor_ms(self, now_ms: int) -> int:
        """Nothing that came in before may be waiting in a spool."""
        floor_ms = now_ms
        if self._unread_since_ms is not None:
            floor_ms = self._unread_since_ms - MARGIN_MS
        for spool_id, report in self.reports.items():
            if self._is_reported(spool_id):
                floor_ms = min(floor_ms, report.floor_ms)
        return floor_ms

    def _is_reported(self, spool_id: str) -> bool:
        # As of the last reading: while the log is out of reach nobody can report.
        return self._last_reading_ms - self._same_since_ms[spool_id] <= ABANDONED_MS
