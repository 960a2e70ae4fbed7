from __future__ import annotations

import json

import pytest
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from ray_tracking.pipeline.outbox import (
    CONFLATE_FROM_BYTES,
    MAX_OUTBOX_BYTES,
    STALLED_AFTER_MS,
    Message,
    Outbox,
    message,
)


def progress(topic: str, number: int, size: int = 1000) -> Message:
    return (
        Message("campaign_progress", b"%d" % number, str(number), topic)
        if not size
        else (
            Message("campaign_progress", b'"%b"' % (b"%d" % number).ljust(size), str(number), topic)
        )
    )


def taken(outbox: Outbox) -> list[str]:
    found = []
    while outbox:
        found.append(outbox.take(0).cursor)
    return found


def test_what_waits_comes_in_order_as_long_as_it_is_little() -> None:
    outbox = Outbox()
    for number in range(100):
        outbox.put(progress("c1", number), 0)
    assert taken(outbox) == [str(number) for number in range(100)]
    assert (outbox.size_bytes, outbox.conflated) == (0, 0)


def test_too_much_is_conflated_to_the_last_of_each_topic() -> None:
    outbox = Outbox()
    outbox.put(message("subscribed", {}, "first"), 0)
    for number in range(1000):
        outbox.put(progress(f"c{number % 3}", number), 0)
        assert outbox.size_bytes <= CONFLATE_FROM_BYTES + 2000
    cursors = taken(outbox)
    # What answers a client's own question is never left out, and order stays.
    assert cursors[0] == "first"
    assert cursors[-3:] == ["997", "998", "999"]
    assert outbox.conflated + len(cursors) == 1001


def test_a_subscriber_that_takes_nothing_for_a_while_is_hopeless() -> None:
    outbox = Outbox()
    assert not outbox.is_hopeless(10**9)
    outbox.put(progress("c1", 1), 1000)
    outbox.put(progress("c1", 2), 5000)
    assert not outbox.is_hopeless(1000 + STALLED_AFTER_MS)
    assert outbox.is_hopeless(1001 + STALLED_AFTER_MS)
    outbox.take(5000)
    assert not outbox.is_hopeless(5000 + STALLED_AFTER_MS)


def test_a_subscriber_with_too_much_that_nothing_replaces_is_hopeless() -> None:
    outbox = Outbox()
    for number in range(MAX_OUTBOX_BYTES // 1200 + 1):
        assert not outbox.is_hopeless(0)
        outbox.put(progress(f"c{number}", number), 0)
    assert outbox.is_hopeless(0)


@pytest.mark.parametrize("size", [0, 1, 50, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_frame_is_what_the_protocol_asks_for(size: int) -> None:
    told = Message("e", b'"%b"' % (b"x" * size), "7-9")
    expected = WebSocketFrame(Opcode.TEXT, told.text).serialize(mask=False)
    assert told.framed == expected


def test_each_kind_of_connection_gets_the_same_in_its_own_form() -> None:
    told = Message("campaign_progress", b'{"a":1}', "7-9")
    assert json.loads(told.text) == {
        "event": "campaign_progress",
        "data": {"a": 1},
        "cursor": "7-9",
    }
    assert told.server_sent == b'event: campaign_progress\nid: 7-9\ndata: {"a":1}\n\n'
    assert json.loads(told.socket_io[1:]) == ["campaign_progress", {"a": 1}, "7-9"]
