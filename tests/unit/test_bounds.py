"""
Every queue of the system, and the bound in bytes that it keeps.

Whoever adds a queue adds it here.
"""

from __future__ import annotations

from ray_tracking.http.live.protocol import MAX_MESSAGE_BYTES
from ray_tracking.http.ports import MAX_REQUEST_BYTES
from ray_tracking.pipeline.admit import AdmissionPolicy
from ray_tracking.pipeline.broadcast import MAX_HEARD_BYTES, MAX_RING_BYTES
from ray_tracking.pipeline.outbox import MAX_OUTBOX_BYTES
from ray_tracking.pipeline.receive import MAX_BATCH_BODY_BYTES
from ray_tracking.pipeline.room import MAX_WAITING_BYTES, Room
from ray_tracking.pipeline.write import FlushPolicy
from ray_tracking.settings import Settings

MIB = 1024 * 1024

#: Where it is, and how much may be in it.
QUEUES = {
    "ingress: requests that are worked on (Ports.requests)": (MAX_REQUEST_BYTES, 256 * MIB),
    "ingress: events on their way to a shard (Gatherer.room)": (MAX_WAITING_BYTES, 64 * MIB),
    "ingress: hits that are not durable yet (Tracking.room)": (MAX_WAITING_BYTES, 64 * MIB),
    "ingress: events on their way to the disk (Spooler.room)": (MAX_WAITING_BYTES, 64 * MIB),
    "shard: events on their way to the log (Shard._room)": (MAX_WAITING_BYTES, 64 * MIB),
    "shard: one entry of the log": (AdmissionPolicy().max_entry_bytes, MIB),
    "writer: entries that are read and not written": (FlushPolicy().max_queue_bytes, 32 * MIB),
    "broadcaster: frames for whoever comes back (Ring)": (MAX_RING_BYTES, 8 * MIB),
    "broadcaster: what attached processes are told (Ring)": (MAX_HEARD_BYTES, 4 * MIB),
    "ingress: its copy of them (Hub)": (MAX_RING_BYTES, 8 * MIB),
    "ingress: messages for one slow live client (Outbox)": (MAX_OUTBOX_BYTES, MIB // 2),
    "ingress: one message of a live client": (MAX_MESSAGE_BYTES, MIB // 16),
    "node: the spool": (Settings.load({}, env={}).spool_max_bytes, 4096 * MIB),
    "cluster: the log": (Settings.load({}, env={}).max_backlog_bytes, 4096 * MIB),
}


def test_every_queue_has_its_bound() -> None:
    assert {name: bound for name, (bound, _) in QUEUES.items()} == {
        name: expected for name, (_, expected) in QUEUES.items()
    }


def test_the_largest_request_fits_into_an_idle_replica() -> None:
    assert MAX_BATCH_BODY_BYTES <= MAX_REQUEST_BYTES


def test_a_room_bounds_events_and_bytes() -> None:
    room = Room(3, 100)
    assert room.take(2, 90)
    assert not room.take(1, 11)
    assert room.take(1, 10)
    assert not room.take(1, 0)
    room.leave(2, 90)
    assert room.take(2, 90)


def test_an_empty_room_takes_what_would_never_fit() -> None:
    room = Room(1, 10)
    assert room.take(500, 10_000)
    assert not room.take(1, 1)
    room.leave(500, 10_000)
    assert (room.events, room.size_bytes) == (0, 0)
