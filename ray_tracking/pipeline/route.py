"""
Where an event goes and what makes it the same event as another.

An event's *identity* is a keyed 64-bit hash. With a caller's id it is the pair
(routing key, id). A pixel or click hit is its token. Opens, clicks, sends and
deliveries are the same when type, campaign, lead, email and link agree and their own
timestamps are less than the window apart; everything else is the same only when the
whole event is, timestamp included. The hash is keyed with a secret stored beside the
data, so that nobody outside can make somebody else's event look like a duplicate.
"""

from __future__ import annotations

import json
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b

import msgspec

from ray_tracking.events import LANES, TYPE_CODES, Agent, Event, EventType, Lane
from ray_tracking.pipeline.receive import is_sampled
from ray_tracking.pipeline.rows import encode_row


class Identity(IntEnum):
    """How two events with the same hash are compared."""

    #: Opens and the like: the same when their own timestamps are near each other.
    TIMED = 0
    #: The caller's own id, held for the idempotency window.
    GIVEN = 1
    #: The whole event, or the token of a hit.
    EXACT = 2


# Flags of a submission, as they stand in the log's headers.
TYPE_MASK = 0b111
MACHINE = 1 << 3
IDENTITY_SHIFT = 4
#: Sent alone, so charged to the burst limit as well.
SINGLE = 1 << 6
#: A pixel or click hit: nobody can send it again, so it is parked, not refused.
HIT = 1 << 7
BOUNCE_SHIFT = 8
#: A dead letter sent again: past dedup and rate, and a row only if its letter is still dead.
REDRIVE = 1 << 10
#: Its request's trace is recorded: the row has the ``traceparent``.
TRACED = 1 << 11
BOUNCE_CODES = {"hard": 0, "soft": 1, "complaint": 2, "suppression": 3}

_TIMED_TYPES = frozenset(
    {
        EventType.EMAIL_SENT,
        EventType.EMAIL_DELIVERED,
        EventType.EMAIL_OPEN,
        EventType.LINK_CLICK,
    }
)
_LANE_CODES = {lane: code for code, lane in enumerate(LANES)}
SECRET_BYTES = 16
_SEPARATOR = "\x1f"


class Submission(msgspec.Struct, frozen=True):
    """An event ready for its shard. ``row`` is its encoded row, ``digest`` its identity."""

    partition: int
    key: str
    lane: int
    flags: int
    event_id: bytes
    digest: bytes
    occurred_us: int
    row: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.row) + 64


def event_ids(now_ms: int, random: bytes) -> list[bytes]:
    """
    UUIDv7s (RFC 9562), whose first 48 bits are ``received_at``: many of the same moment.

    Args:
        now_ms: Unix time in milliseconds.
        random: 16 random bytes for each.
    """
    kept, fixed = _masks(len(random) // 16)
    stamps = int.from_bytes((now_ms.to_bytes(6, "big") + bytes(10)) * (len(random) // 16), "big")
    raw = (int.from_bytes(random, "big") & kept | fixed | stamps).to_bytes(len(random), "big")
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


def at_time(raw_event_id: bytes, now_ms: int) -> bytes:
    """The same event id at another time."""
    return now_ms.to_bytes(6, "big") + raw_event_id[6:]


@lru_cache(maxsize=4)
def _masks(count: int) -> tuple[int, int]:
    """Which bits of ids are random, and those that say what kind of id it is."""
    kept = bytes.fromhex("000000000000 0fff 3fffffffffffffff")
    fixed = bytes.fromhex("000000000000 7000 8000000000000000")
    return int.from_bytes(kept * count, "big"), int.from_bytes(fixed * count, "big")


def received_ms(raw_event_id: bytes) -> int:
    """The time inside an event id, in Unix milliseconds."""
    return int.from_bytes(raw_event_id[:6], "big")


def received_span_ms(event_ids: bytes) -> tuple[int, int]:
    """The earliest and the latest time inside event ids that stand end to end; at least one."""
    # The time is the first six bytes of an id, and ids compare as their times do.
    stamps = [event_ids[at : at + 6] for at in range(0, len(event_ids), 16)]
    return received_ms(min(stamps)), received_ms(max(stamps))


@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition of a routing key. Stable for ever: the log depends on it."""
    digest = blake2b(key.encode(), digest_size=8, person=b"partition").digest()
    return int.from_bytes(digest, "big") % partitions


class Router:
    """
    Turns valid events into submissions.

    Args:
        partitions: How many partitions the log has.
        secret: Key of the identity hash, stored with the data.
    """

    def __init__(self, partitions: int, secret: bytes) -> None:
        self._partitions = partitions
        # To copy one that has its key costs less than to begin anew.
        self._hash = blake2b(digest_size=8, key=secret)

    def route(
        self,
        event: Event,
        event_id: bytes,
        *,
        single: bool = False,
        idempotency_key: str | None = None,
        token: str | None = None,
        traceparent: str | None = None,
    ) -> Submission:
        """
        Route one event.

        Args:
            event: What happened.
            event_id: The id minted for it, which holds its time of receipt.
            single: It came alone, not in a batch.
            idempotency_key: The request's ``Idempotency-Key``, where the event has no id.
            token: The token of a pixel or click hit.
            traceparent: The request's, which goes with the event to its row.
        """
        key = event.routing_key
        given = event.data.get("eventId") or idempotency_key
        if token is not None:
            identity, text = Identity.EXACT, f"hit{_SEPARATOR}{token}{_SEPARATOR}{event.agent}"
        elif given is not None:
            identity, text = Identity.GIVEN, f"id{_SEPARATOR}{given}"
        elif event.type in _TIMED_TYPES:
            data = event.data
            link = data.get("linkUrl", "")
            identity = Identity.TIMED
            text = _SEPARATOR.join((event.type, data["leadId"], data["emailId"], link))
        else:
            # The moment, not its spelling: 19:00Z and 20:00+01:00 are one event.
            whole = json.dumps(event.data | {"timestamp": event.occurred_us}, sort_keys=True)
            identity, text = Identity.EXACT, f"{event.type}{_SEPARATOR}{whole}"
        identity_hash = self._hash.copy()
        identity_hash.update(f"{key}{_SEPARATOR}{_SEPARATOR}{text}".encode())
        return Submission(
            partition_of(key, self._partitions),
            key,
            _LANE_CODES[Lane.HIGH if event.high else Lane.NORMAL],
            _flags(event, identity, single=single, hit=token is not None)
            | (TRACED if is_sampled(traceparent) else 0),
            event_id,
            identity_hash.digest(),
            event.occurred_us,
            encode_row(event, event_id, received_ms(event_id), traceparent),
        )


def _flags(event: Event, identity: Identity, *, single: bool, hit: bool) -> int:
    flags = TYPE_CODES[event.type] | identity << IDENTITY_SHIFT
    if event.agent is Agent.MACHINE:
        flags |= MACHINE
    if single:
        flags |= SINGLE
    if hit:
        flags |= HIT
    if event.type is EventType.EMAIL_BOUNCE:
        flags |= BOUNCE_CODES[event.data["bounceType"]] << BOUNCE_SHIFT
    return flags
