"""
One call to a shard: many submissions in one blob, one outcome each on the way back.

Columns stand end to end instead of objects, because a Ray call costs the same for one
event as for a thousand, and pickling a thousand small objects does not.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from ray_tracking.pipeline.route import Submission


class Columns(msgspec.Struct, array_like=True, frozen=True):
    """Submissions of any partitions, column by column; integers little-endian."""

    keys: list[str]
    key_index: bytes  # u16 each
    partitions: bytes  # u16 each
    lanes: bytes  # u8 each
    flags: bytes  # u16 each
    event_ids: bytes  # 16 bytes each
    digests: bytes  # u64 each
    occurred_us: bytes  # i64 each
    row_sizes: bytes  # u32 each
    rows: bytes


_encoder = msgspec.msgpack.Encoder()
_columns_decoder = msgspec.msgpack.Decoder(Columns)


def pack(submissions: Sequence[Submission]) -> bytes:
    """Put submissions into one blob."""
    index: dict[str, int] = {}
    key_index = array("H", [index.setdefault(s.key, len(index)) for s in submissions])
    return _encoder.encode(
        Columns(
            list(index),
            key_index.tobytes(),
            array("H", [s.partition for s in submissions]).tobytes(),
            bytes([s.lane for s in submissions]),
            array("H", [s.flags for s in submissions]).tobytes(),
            b"".join([s.event_id for s in submissions]),
            b"".join([s.digest for s in submissions]),
            array("q", [s.occurred_us for s in submissions]).tobytes(),
            array("I", [len(s.row) for s in submissions]).tobytes(),
            b"".join([s.row for s in submissions]),
        )
    )


def unpack(blob: bytes) -> list[Submission]:
    """The submissions of :func:`pack`, in order."""
    c = _columns_decoder.decode(blob)
    keys = c.keys
    event_ids, digests, rows = c.event_ids, c.digests, c.rows
    submissions = []
    start = 0
    for i, (key, partition, lane, flags, occurred_us, size) in enumerate(
        zip(
            array("H", c.key_index),
            array("H", c.partitions),
            c.lanes,
            array("H", c.flags),
            array("q", c.occurred_us),
            array("I", c.row_sizes),
            strict=True,
        )
    ):
        end = start + size
        submissions.append(
            Submission(
                partition,
                keys[key],
                lane,
                flags,
                event_ids[16 * i : 16 * i + 16],
                digests[8 * i : 8 * i + 8],
                occurred_us,
                rows[start:end],
            )
        )
        start = end
    return submissions


class Chunk(msgspec.Struct, array_like=True, frozen=True):
    """
    A stretch of a spool on its way to a shard.

    Everything before ``start`` is drained; ``offsets`` (u64 each) says where each of the
    submissions in ``blob`` stands.
    """

    spool_id: str
    start: int
    end: int
    offsets: bytes
    blob: bytes


_chunk_decoder = msgspec.msgpack.Decoder(Chunk)


def pack_chunk(chunk: Chunk) -> bytes:
    """Put a chunk into one blob."""
    return _encoder.encode(chunk)


def unpack_chunk(blob: bytes) -> Chunk:
    """The chunk of :func:`pack_chunk`."""
    return _chunk_decoder.decode(blob)


class Verdict(IntEnum):
    """What became of one submission."""

    #: It is in the log, fsynced.
    ACCEPTED = 0
    #: Its identity is already in the log.
    DUPLICATE = 1
    #: Its campaign is over its rate.
    LIMITED = 2
    #: It is unclear whether it is in the log. It may be sent again, and is never spooled.
    UNAVAILABLE = 3
    #: It is not in the log, because the log cannot be reached: a case for the spool.
    AWAY = 4
    #: It is not in the log, because a buffer or the log is full, or its partition is shut.
    FULL = 5
    #: It is in this node's spool, fsynced.
    SPOOLED = 6


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """
    A verdict with what belongs to it.

    ``position`` is ``(partition, lane, epoch, seq, index)`` of an accepted event, where
    somebody is told: of a single one always, of one in a batch not;
    ``first_id`` the event id of a duplicate's first; ``retry_after_s`` says when to
    come again.
    """

    verdict: Verdict
    position: tuple[int, int, int, int, int] | None = None
    first_id: bytes | None = None
    retry_after_s: float = 0.0


_outcomes_decoder = msgspec.msgpack.Decoder(list[Outcome])


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Put outcomes into one blob, in the order of the submissions."""
    return _encoder.encode(outcomes)


def unpack_outcomes(blob: bytes) -> list[Outcome]:
    """The outcomes of :func:`pack_outcomes`."""
    return _outcomes_decoder.decode(blob)


@dataclass(frozen=True, slots=True)
class GatherPolicy:
    """How much goes into one call, and how much may wait for one."""

    max_call_events: int = 3000
    #: Calls to one shard begin this far apart for each event in the last one, because a
    #: call costs the same for one event as for a thousand: nobody waits while there are few,
    #: and where there are many they share their calls.
    linger_per_event_s: float = 0.0001
    #: And never further apart than that.
    linger_s: float = 0.010
    max_buffered_events: int = 10_000

    def wait_s(self, since_last_s: float, last_events: int, events: int) -> float:
        """
        How long to wait with the next call.

        Args:
            since_last_s: Since the last call to this shard began.
            last_events: How many were in it.
            events: How many are waiting.
        """
        if events >= self.max_call_events:
            return 0.0
        return max(0.0, self.linger_of(last_events) - since_last_s)

    def linger_of(self, last_events: int) -> float:
        """How far apart calls begin, after one with so many events, in seconds."""
        return min(self.linger_s, self.linger_per_event_s * last_events)
