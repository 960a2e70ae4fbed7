"""
What an entry of the log holds, and how an owner's entries follow each other.

Each partition has one stream a lane. Ids are explicit, ``<epoch>-<seq>``: the server
refuses an id that is not larger than the last, so that taking over is a
compare-and-set and an append of an earlier owner is refused. An owner's epoch starts
with a *marker* (``seq`` 0), then a *chain* (``seq`` 1) that names the entry that
really stands before the marker, then record batches. A reader that finds any other
order has found a gap.

An entry has two fields: ``h``, a header that can be read without the body, and ``b``,
the rows of :mod:`ray_tracking.pipeline.rows` end to end. Format version 1.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec
import zstandard

from ray_tracking.errors import TrackingError
from ray_tracking.pipeline.route import Submission
from ray_tracking.pipeline.rows import split_rows

VERSION = 1
#: Bodies below this size are not worth compressing.
_COMPRESS_FROM_BYTES = 512


class EntryId(NamedTuple):
    """Orders as the server orders."""

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> EntryId:
        epoch, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(epoch), int(seq))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


#: Before every entry.
ORIGIN = EntryId(0, 0)


#: A stretch of a spool: its id, and the offsets from which and up to which it goes.
SpoolChunk = tuple[str, int, int]


class Kind(IntEnum):
    BATCH = 0
    MARKER = 1
    CHAIN = 2


class Header(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """
    What can be read of an entry without its body.

    ``total`` counts the events in this lane up to and with this entry, so that the
    books can be closed from any entry. ``appended_ms`` is the owner's clock. The
    columns are those of :class:`ray_tracking.pipeline.gather.Columns`.
    """

    version: int = VERSION
    kind: Kind
    count: int = 0
    total: int = 0
    appended_ms: int = 0
    #: Of a chain: the last entry before the marker that is no marker.
    previous: str = ""
    keys: list[str] = []
    key_index: bytes = b""
    flags: bytes = b""
    event_ids: bytes = b""
    digests: bytes = b""
    occurred_us: bytes = b""
    row_sizes: bytes = b""
    compressed: bool = False
    #: Of events out of a spool: (its id, start, end of their chunk). Everything before
    #: the start is in this partition already.
    spool: SpoolChunk | None = None


class BadEntry(TrackingError):
    """An entry cannot be read: it is of a newer version, or not one of ours."""

    code = "bad_entry"


class Entry(NamedTuple):
    """An entry as it stands in the log."""

    id: EntryId
    header: Header
    body: bytes

    @property
    def rows(self) -> list[bytes]:
        """The encoded rows, in order."""
        body = self.body
        if self.header.compressed:
            body = zstandard.ZstdDecompressor().decompress(body)
        return split_rows(body, array("I", self.header.row_sizes))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Header).decode


def encode_entry(header: Header, body: bytes = b"") -> dict[bytes, bytes]:
    """The fields of an entry, as ``XADD`` takes them."""
    return {b"h": _encode(header), b"b": body}


def decode_entry(raw_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    """
    Read an entry.

    Raises:
        BadEntry: If it is of a newer version, or not one of ours.
    """
    try:
        header = _decode(fields[b"h"])
        body = fields[b"b"]
    except (KeyError, msgspec.DecodeError) as error:
        raise BadEntry(
            f"log entry {raw_id!r} is not one of ours ({error}); delete it (XDEL)"
        ) from None
    if header.version != VERSION:
        raise BadEntry(f"log entry {raw_id!r} has version {header.version}; this reads {VERSION}")
    return Entry(EntryId.parse(raw_id), header, body)


def encode_batch(
    submissions: Sequence[Submission],
    *,
    total: int,
    appended_ms: int,
    compress: bool = False,
    spool: SpoolChunk | None = None,
) -> dict[bytes, bytes]:
    """
    Make a record batch of submissions of one partition and lane.

    Args:
        submissions: In the order in which they stand.
        total: Events in this lane after this batch.
        appended_ms: The owner's clock.
        compress: Whether to compress the body where that pays.
        spool: Where they come from, if it is a spool.
    """
    index: dict[str, int] = {}
    key_index = array("H", [index.setdefault(s.key, len(index)) for s in submissions])
    body = b"".join([s.row for s in submissions])
    compressed = compress and len(body) >= _COMPRESS_FROM_BYTES
    header = Header(
        kind=Kind.BATCH,
        count=len(submissions),
        total=total,
        appended_ms=appended_ms,
        keys=list(index),
        key_index=key_index.tobytes(),
        flags=array("H", [s.flags for s in submissions]).tobytes(),
        event_ids=b"".join([s.event_id for s in submissions]),
        digests=b"".join([s.digest for s in submissions]),
        occurred_us=array("q", [s.occurred_us for s in submissions]).tobytes(),
        row_sizes=array("I", [len(s.row) for s in submissions]).tobytes(),
        compressed=compressed,
        spool=spool,
    )
    return encode_entry(header, zstandard.compress(body, 1) if compressed else body)


def remembered(header: Header, partition: int, lane: int) -> Iterator[Submission]:
    """The submissions of a batch without their rows: what rebuilding a window needs."""
    for i, (key, flags, occurred_us) in enumerate(
        zip(
            array("H", header.key_index),
            array("H", header.flags),
            array("q", header.occurred_us),
            strict=True,
        )
    ):
        yield Submission(
            partition,
            header.keys[key],
            lane,
            flags,
            header.event_ids[16 * i : 16 * i + 16],
            header.digests[8 * i : 8 * i + 8],
            occurred_us,
            b"",
        )


def next_epoch(last_epochs: Sequence[int], stored_epoch: int, now_s: float) -> int:
    """
    The epoch of a new owner: larger than any that was, also after a lost log.

    Args:
        last_epochs: Of the last entry in each lane, 0 for an empty one.
        stored_epoch: Of the position in Postgres; 0 if it does not answer.
        now_s: Unix time, so that a log and a database that are both new still start
            after what an earlier life of either may have used.
    """
    return max(max(last_epochs, default=0) + 1, stored_epoch + 1, int(now_s))
