"""
The binary form of a row: built once, at ingress, and carried as it is through the log
into Postgres.

A row here is the sequence of fields of ``COPY … (FORMAT binary)`` [1]_ for
:data:`COLUMNS`, without the tuple's leading field count and without the log position,
which is known only after the append: :func:`copy_tuples` adds both. The form is part
of the log's format, so a change of :data:`COLUMNS` is a new version of record batch.

.. [1] https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from ray_tracking.events import Agent, Event, EventType, Lane

#: What one event brings along, in this order.
COLUMNS = (
    "event_id", "event_type", "campaign_id", "lead_id", "email_id", "account_id",
    "client_event_id", "occurred_at", "received_at", "agent", "link_url", "bounce_type",
    "ip_address", "user_agent", "device", "location", "custom", "details",
)  # fmt: skip
#: What the log adds, in this order, before the columns above.
POSITION_COLUMNS = ("log_partition", "log_lane", "log_epoch", "log_seq", "log_index")

#: ``eventData`` fields of each type that have no column of their own.
DETAIL_FIELDS: dict[EventType, tuple[str, ...]] = {
    EventType.EMAIL_SENT: (),
    EventType.EMAIL_DELIVERED: (),
    EventType.EMAIL_OPEN: (),
    EventType.LINK_CLICK: ("linkId",),
    EventType.EMAIL_REPLY: ("messageId", "inReplyTo", "subject", "autoReply"),
    EventType.EMAIL_BOUNCE: ("bounceReason", "smtpCode"),
    EventType.CAMPAIGN_STATUS_CHANGE: ("newStatus", "oldStatus", "reason"),
    EventType.ACCOUNT_HEALTH_UPDATE: ("healthScore", "status", "reason"),
}

#: Where ``details`` has the trace context of the request that brought the event.
TRACEPARENT = "traceparent"

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)

_NULL = struct.pack(">i", -1)
_length = struct.Struct(">i").pack
_read_length = struct.Struct(">i").unpack_from
_times = struct.Struct(">iqiq").pack
_index_field = struct.Struct(">ii").pack
_position_fields = struct.Struct(">hii").pack
#: Postgres counts microseconds from 2000-01-01.
_POSTGRES_EPOCH_US = 946_684_800_000_000
_JSONB_VERSION = b"\x01"
_AF_INET, _AF_INET6 = 2, 3


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value


@lru_cache(maxsize=1024)
def _text_field(value: str) -> bytes:
    """Of texts that come again and again."""
    return _field(value.encode())


_UUID_LENGTH = _length(16)
_TYPE_FIELDS = {event_type: _field(event_type.encode()) for event_type in EventType}
_AGENT_FIELDS: dict[Agent | None, bytes] = {
    None: _NULL,
    **{agent: _field(agent.encode()) for agent in Agent},
}
#: Of an identifier: up to 128 characters of up to four bytes each.
_LENGTHS = tuple(_length(size) for size in range(4 * 128 + 1))
_ID_FIELDS = ("campaignId", "leadId", "emailId", "accountId", "eventId")


def encode_row(
    event: Event, event_id: bytes, received_ms: int, traceparent: str | None = None
) -> bytes:
    """
    Encode an event for :data:`COLUMNS`.

    Args:
        event: What happened.
        event_id: The 16 bytes of the UUIDv7 minted for it.
        received_ms: Unix time in milliseconds when it came in.
        traceparent: Of the request that brought it, where that has one.
    """
    get = event.data.get
    parts = [_UUID_LENGTH, event_id, _TYPE_FIELDS[event.type]]
    add = parts.append
    for name in _ID_FIELDS:
        value = get(name)
        if value is None:
            add(_NULL)
        else:
            raw = value.encode()
            add(_LENGTHS[len(raw)])
            add(raw)
    add(
        _times(
            8, event.occurred_us - _POSTGRES_EPOCH_US,
            8, received_ms * 1000 - _POSTGRES_EPOCH_US,
        )
    )  # fmt: skip
    add(_AGENT_FIELDS[event.agent])
    for name in ("linkUrl", "bounceType"):
        value = get(name)
        add(_NULL if value is None else _field(value.encode()))
    address = get("ipAddress")
    add(_NULL if address is None else _field(packed_ip(address)))
    agent = get("userAgent")
    add(_NULL if agent is None else _text_field(agent))
    for name in ("deviceInfo", "locationInfo", "customData"):
        value = get(name)
        add(_NULL if value is None else _jsonb(value))
    names = DETAIL_FIELDS[event.type]
    details = {name: event.data[name] for name in names if name in event.data} if names else None
    if traceparent is not None:
        details = {**(details or {}), TRACEPARENT: traceparent}
    add(_jsonb(details) if details else _NULL)
    return b"".join(parts)


def copy_tuples(
    partition: int, lane: Lane, epoch: int, seq: int, rows: Iterable[tuple[int, bytes]]
) -> bytes:
    """
    Complete rows with their log position: the body of a binary COPY, without header and trailer.

    Args:
        rows: ``(index in the entry, encoded row)`` each.
    """
    raw_lane = lane.encode()
    prefix = b"".join(
        (
            _position_fields(len(POSITION_COLUMNS) + len(COLUMNS), 4, partition),
            _field(raw_lane),
            _field(struct.pack(">q", epoch)),
            _field(struct.pack(">q", seq)),
        )
    )
    parts: list[bytes] = []
    for index, row in rows:
        parts.append(prefix)
        parts.append(_index_field(4, index))
        parts.append(row)
    return b"".join(parts)


def split_rows(blob: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut rows that stand end to end."""
    rows = []
    start = 0
    for size in sizes:
        rows.append(blob[start : start + size])
        start += size
    return rows


def decode_row(row: bytes) -> dict[str, Any]:
    """
    Read an encoded row back: column name to Python value, as asyncpg would give it.

    For readers of the log that want more than its headers.
    """
    values: dict[str, Any] = {}
    at = 0
    for column in COLUMNS:
        (size,) = struct.unpack_from(">i", row, at)
        at += 4
        if size < 0:
            values[column] = None
            continue
        values[column] = _DECODERS.get(column, bytes.decode)(row[at : at + size])
        at += size
    return values


def read_fields(row: bytes, upto: int) -> list[bytes | None]:
    """The raw fields of the first columns of an encoded row."""
    fields: list[bytes | None] = []
    at = 0
    for _ in range(upto):
        (size,) = _read_length(row, at)
        at += 4
        if size < 0:
            fields.append(None)
            continue
        fields.append(row[at : at + size])
        at += size
    return fields


def event_data(columns: Mapping[str, Any]) -> dict[str, Any]:
    """
    Rebuild ``eventData`` as it was accepted from a row's columns.

    Takes what :func:`decode_row` or a query on ``events`` yields: times as aware
    datetimes, the address as text or an ``ipaddress`` object, JSON as text.
    """
    data: dict[str, Any] = {}
    for name, column in _WIRE_NAMES:
        if (value := columns[column]) is not None:
            data[name] = value
    data["timestamp"] = iso_utc(columns["occurred_at"])
    if "ipAddress" in data:
        data["ipAddress"] = str(data["ipAddress"]).partition("/")[0]
    for name, column in _JSON_NAMES:
        if (text := columns[column]) is not None:
            data[name] = json.loads(text)
    if (text := columns["details"]) is not None:
        details = json.loads(text)
        details.pop(TRACEPARENT, None)  # is of the request
        data.update(details)
    return data


def iso_utc(moment: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond, or to the microsecond where there are any."""
    unit = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.astimezone(UTC).isoformat(timespec=unit).replace("+00:00", "Z")


def encode_json(value: Any) -> bytes:
    """JSON as UTF-8; integers of any size."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@lru_cache(maxsize=16_384)
def packed_ip(address: str) -> bytes:
    """
    The binary form of an ``inet``.

    Raises:
        ValueError: If it is not an address; scoped IPv6 addresses are none for Postgres.
    """
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip.scope_id is not None:
        raise ValueError(address)
    family, bits = (_AF_INET, 32) if ip.version == 4 else (_AF_INET6, 128)
    return bytes((family, bits, 0, len(ip.packed))) + ip.packed


def _jsonb(value: Any) -> bytes:
    return _field(_JSONB_VERSION + encode_json(value))


def _read_time(raw: bytes) -> datetime:
    (since,) = struct.unpack(">q", raw)
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=since)


def _read_json(raw: bytes) -> str:
    return raw[1:].decode()


_DECODERS: dict[str, Any] = {
    "event_id": lambda raw: UUID(bytes=raw),
    "occurred_at": _read_time,
    "received_at": _read_time,
    "ip_address": lambda raw: ipaddress.ip_address(raw[4:]),
    "device": _read_json,
    "location": _read_json,
    "custom": _read_json,
    "details": _read_json,
}
_WIRE_NAMES = (
    ("campaignId", "campaign_id"),
    ("leadId", "lead_id"),
    ("emailId", "email_id"),
    ("accountId", "account_id"),
    ("eventId", "client_event_id"),
    ("linkUrl", "link_url"),
    ("bounceType", "bounce_type"),
    ("ipAddress", "ip_address"),
    ("userAgent", "user_agent"),
)
_JSON_NAMES = (("deviceInfo", "device"), ("locationInfo", "location"), ("customData", "custom"))
