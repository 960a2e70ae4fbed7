"""
How a record stands in a segment, and how records are found among damage.

A frame is a magic, the payload's length, a CRC-32, the number of events, and the payload.
The CRC also covers the offset: bytes of an old file that come back after a power failure
are no records of this one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 2**32 - 1

#: Its first bytes occur in no UTF-8 text, so nobody can send a frame inside an event.
_MAGIC = b"\xfe\xffsp"
_HEADER = struct.Struct("<4sIII")
_COVERED = struct.Struct("<QII")


class Record(NamedTuple):
    """What was appended at once. The next record begins at ``end``, or behind damage there."""

    offset: int
    end: int
    events: int
    payload: bytes


class Damage(NamedTuple):
    """Where no record can be read. ``data`` is shorter than that where bytes are missing."""

    offset: int
    end: int
    data: bytes


def frame_bytes(payload: bytes) -> int:
    """How large a payload's frame is."""
    return _HEADER.size + len(payload)


def header(payload: bytes, events: int, offset: int) -> bytes:
    """What stands before a payload whose frame begins at an offset."""
    crc = _checksum(payload, events, offset)
    return _HEADER.pack(_MAGIC, len(payload), crc, events)


def first_record(data: bytes, offset: int) -> Record | None:
    """The whole record at the beginning of data, which begins at an offset."""
    return _record_at(data, 0, offset)


def scan(data: bytes, offset: int, end: int) -> Iterator[Record | Damage]:
    """
    Everything from an offset to an end, in order and without a hole.

    Args:
        data: What is there; shorter than ``end - offset`` where bytes are missing.
        offset: Where data begins.
        end: Where damage ends that has no record behind it.
    """
    at, data_offset = 0, offset
    while offset < end:
        if (record := _record_at(data, at, offset)) is not None:
            yield record
            offset = record.end
        else:
            behind = _next_record_at(data, at + 1, data_offset)
            damage_end = end if behind is None else data_offset + behind
            yield Damage(offset, damage_end, data[at:behind])
            offset = damage_end
        at = offset - data_offset


def is_cut_short(data: bytes) -> bool:
    """Whether this is the beginning of a frame, as a write that did not come to its end leaves."""
    if len(data) < _HEADER.size:
        return data[: len(_MAGIC)] == _MAGIC[: len(data)]
    magic, length, _, _ = _HEADER.unpack_from(data)
    return bool(magic == _MAGIC and len(data) - _HEADER.size < length <= MAX_PAYLOAD_BYTES)


def _checksum(payload: bytes, events: int, offset: int) -> int:
    return zlib.crc32(payload, zlib.crc32(_COVERED.pack(offset, len(payload), events)))


def _record_at(data: bytes, at: int, offset: int) -> Record | None:
    begin = at + _HEADER.size
    if begin > len(data):
        return None
    magic, length, crc, events = _HEADER.unpack_from(data, at)
    if magic != _MAGIC or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    if _checksum(payload, events, offset) != crc:
        return None
    return Record(offset, offset + _HEADER.size + length, events, payload)


def _next_record_at(data: bytes, at: int, data_offset: int) -> int | None:
    while (at := data.find(_MAGIC, at)) >= 0:
        if _record_at(data, at, data_offset + at) is not None:
            return at
        at += 1
    return None
