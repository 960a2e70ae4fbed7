from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import orjson
import pytest

from ray_tracking.events import EventType
from ray_tracking.pipeline.broadcast import (
    MAX_BATCH_EVENTS,
    MAX_SINGLE_EVENTS,
    Activity,
    Cursor,
    Frame,
    Interest,
    Ring,
    Shown,
    To,
    broadcasted,
    campaign_frames,
    figures_frame,
    system_frame,
)
from ray_tracking.pipeline.figures import Figures, LastEvent
from ray_tracking.pipeline.rows import decode_row, event_data
from tests.support import events

LAST = LastEvent(EventType.EMAIL_OPEN, 1_793_523_600_000_000)


def frame(offset: int, topic: str = "c1", size: int = 10) -> Frame:
    return Frame(offset, topic, "campaign_progress", int(To.ALL), b"x" * size)


def filled(offsets: range, **more: Any) -> Ring:
    ring = Ring(Cursor(7, offsets.start - 1), **more)
    for offset in offsets:
        ring.add(frame(offset, "c1" if offset % 2 else "c2"))
    return ring


def figures(opens: int = 0, unique: int = 0) -> Figures:
    return Figures([0, 0, opens, *[0] * 8], [unique, 0, 0], None, None, 5)


def test_a_ring_gives_what_comes_behind_a_cursor() -> None:
    ring = filled(range(101, 111))
    assert [f.offset for f in ring.since(105, 10**6)] == [106, 107, 108, 109, 110]
    assert ring.since(110, 10**6) == []
    missed = ring.missed("c1", Cursor(7, 104))
    assert missed is not None
    assert [f.offset for f in missed] == [105, 107, 109]
    assert ring.missed("c3", Cursor(7, 104)) == []


@pytest.mark.parametrize(
    "cursor",
    [Cursor(6, 105), Cursor(8, 105), Cursor(7, 99), Cursor(7, 111)],
    ids=["earlier life", "later life", "before the ring", "ahead of it"],
)
def test_a_ring_does_not_say_what_it_does_not_know(cursor: Cursor) -> None:
    assert filled(range(101, 111)).missed("c1", cursor) is None


def test_the_cursor_before_the_first_frame_has_missed_all_of_them() -> None:
    missed = filled(range(101, 111)).missed("c2", Cursor(7, 100))
    assert missed is not None
    assert len(missed) == 5


def test_a_ring_is_bounded_in_bytes_and_knows_what_it_let_go() -> None:
    ring = Ring(Cursor(7, 0), max_bytes=10_000)
    for offset in range(1, 1001):
        ring.add(frame(offset, f"c{offset}", size=400))
        assert ring.size_bytes <= 10_000
    assert ring.start == 990
    assert ring.missed("c991", Cursor(7, 989)) is None
    assert ring.missed("c991", Cursor(7, 990)) is not None
    assert len(ring._by_topic) == 10


def test_a_ring_gives_at_least_one_frame_however_large() -> None:
    ring = filled(range(1, 4))
    assert [f.offset for f in ring.since(0, 1)] == [1]


def test_offsets_without_a_gap_are_insisted_on() -> None:
    with pytest.raises(AssertionError):
        filled(range(1, 4)).add(frame(5))


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-2-3", "a-1", "1-٣", "1-" + "9" * 60])
def test_a_cursor_that_is_none_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


def test_a_cursor_comes_back_from_its_text() -> None:
    assert Cursor.parse(str(Cursor(5, 7))) == Cursor(5, 7)


def shown(number: int, activity: Activity) -> None:
    for _ in range(number):
        activity.events += 1
        if len(activity.shown) < MAX_BATCH_EVENTS:
            one = events.submission(partitions=4)
            activity.shown.append(Shown(EventType.EMAIL_OPEN, one.occurred_us, one.row))


def told(number: int, to: To, batched: bool = False) -> list[tuple[str, Any]]:
    activity = Activity(figures())
    shown(number, activity)
    frames = campaign_frames(
        "c1", activity, figures(number), LAST, first_offset=10, to=to, batched=batched
    )
    assert [f.offset for f in frames] == list(range(10, 10 + len(frames)))
    return [(f.name, json.loads(f.data)) for f in frames]


def test_a_tick_is_one_frame_for_plain_subscribers_and_one_an_event_in_detail() -> None:
    names = [name for name, _ in told(3, To.ALL)]
    assert names == ["campaign_progress", *["campaign_progress_detailed"] * 3]
    assert [name for name, _ in told(3, To.PLAIN)] == ["campaign_progress"]


def test_the_frames_of_a_tick_all_have_the_figures_after_it_and_growing_versions() -> None:
    data = [data for _, data in told(3, To.ALL)]
    assert {each["counters"]["opens"] for each in data} == {3}
    assert [each["version"] for each in data] == [10, 11, 12, 13]


def test_many_events_in_a_tick_share_a_batch() -> None:
    assert [name for name, _ in told(MAX_SINGLE_EVENTS, To.DETAIL)] == [
        "campaign_progress_detailed"
    ] * MAX_SINGLE_EVENTS
    ((name, data),) = told(MAX_SINGLE_EVENTS + 1, To.DETAIL)
    assert (name, data["batchSize"], data["dropped"]) == ("progress_batch", 17, 0)


def test_what_has_priority_is_told_as_in_every_mode_while_the_rest_is_batched() -> None:
    activity = Activity(figures())
    shown(3, activity)
    bounce = events.submission("EMAIL_BOUNCE", partitions=4, bounceType="hard")
    activity.events += 1
    activity.urgent_events += 1
    activity.urgent.append(Shown(EventType.EMAIL_BOUNCE, bounce.occurred_us, bounce.row))
    frames = campaign_frames(
        "c1", activity, figures(3), LAST, first_offset=10, to=To.ALL, batched=True
    )
    urgent, rest = json.loads(frames[1].data), json.loads(frames[2].data)
    assert [frame.name for frame in frames] == [
        "campaign_progress", "campaign_progress_detailed", "progress_batch",
    ]  # fmt: skip
    assert (urgent["event"]["eventType"], urgent["version"]) == ("EMAIL_BOUNCE", 11)
    assert (rest["batchSize"], rest["dropped"], rest["events"][0]["version"]) == (3, 0, 12)


def test_a_batch_is_capped_and_says_so() -> None:
    ((_, data),) = told(MAX_BATCH_EVENTS + 5, To.PLAIN, batched=True)
    assert (data["batchSize"], data["dropped"]) == (MAX_BATCH_EVENTS, 5)


def test_whoever_comes_back_between_two_frames_of_a_tick_sees_nothing_go_back() -> None:
    """The figures before the second frame are those that the first has shown."""
    activity = Activity(figures(5))
    shown(2, activity)
    first, second = campaign_frames(
        "c1", activity, figures(7), LAST, first_offset=1, to=To.DETAIL, batched=False
    )
    assert (first.before, first.after) == (figures(5), figures(7))
    assert (second.before, second.after) == (figures(7), figures(7))


@pytest.mark.parametrize(
    ("before", "after", "correction"),
    [
        (figures(5), figures(6), False),
        (figures(5), figures(4), True),
        (figures(5, unique=2), figures(6, unique=1), True),
        (figures(5, unique=2), figures(5, unique=3), False),
        (None, figures(5), True),
    ],
)
def test_only_figures_that_go_back_are_a_correction(
    before: Figures | None, after: Figures, correction: bool
) -> None:
    data = json.loads(figures_frame("c1", before, after, LAST, 1).data)
    assert data.get("correction", False) is correction
    assert data["counters"]["opens"] == after.counts[2]


def test_interest_lasts_for_a_while_after_it_was_last_said() -> None:
    interest = Interest(linger_ms=100)
    assert interest.of("c1") is None
    assert interest.lacks({"c1": int(To.PLAIN)})
    interest.add({"c1": int(To.PLAIN)}, 5, 0)
    assert not interest.lacks({"c1": int(To.PLAIN)})
    assert interest.lacks({"c1": int(To.DETAIL)})
    interest.add({"c1": int(To.ALL)}, 9, 50)
    assert interest.of("c1") is To.ALL
    assert interest.since("c1") == (5, 9)
    interest.expire(150)
    assert interest.of("c1") is To.ALL
    interest.expire(151)
    assert interest.of("c1") is None
    assert interest.campaigns == []


def test_an_event_is_shown_as_it_was_accepted() -> None:
    one = events.submission(
        "LINK_CLICK",
        partitions=4,
        leadId="Ädä",
        timestamp="2026-11-01T09:00:00.123456Z",
        deviceInfo={"type": "mobile", "os": None},
        locationInfo={"city": "Zürich"},
        customData={"a": 1},
        ipAddress="84.160.12.7",
    )
    columns = decode_row(one.row)
    whole = Shown(EventType.LINK_CLICK, one.occurred_us, one.row).whole()
    data = event_data(columns)
    assert json.loads(orjson.dumps(whole)) == {
        "eventType": "LINK_CLICK",
        **{name: data[name] for name in ("leadId", "emailId", "linkUrl", "timestamp")},
        "deviceInfo": {"type": "mobile"},
        "locationInfo": {"city": "Zürich"},
    }
    brief = Shown(EventType.LINK_CLICK, one.occurred_us, one.row).brief()
    assert brief.items() <= whole.items()


def test_what_an_event_does_not_have_is_null() -> None:
    one = events.submission("CAMPAIGN_STATUS_CHANGE", partitions=4)
    whole = Shown(EventType.CAMPAIGN_STATUS_CHANGE, one.occurred_us, one.row).whole()
    missing = ("leadId", "emailId", "linkUrl", "deviceInfo", "locationInfo")
    assert [whole[name] for name in missing] == [None] * 5


def test_a_ring_keeps_of_states_only_the_last() -> None:
    """They come for as long as the service runs, whether anybody watches or not."""
    ring = Ring(Cursor(7, 0), max_bytes=10**9)
    ring.add(frame(1))
    for offset in range(2, 1002, 2):
        ring.add(system_frame("metrics_collected", "x" * 5000, offset))
        ring.add(system_frame("backpressure_changed", {}, offset + 1))
    kept = ring.since(0, 10**9)
    assert [f.offset for f in kept] == list(range(1, 1002))
    assert [f.offset for f in kept if f.name == "metrics_collected"] == [1000]
    assert len([f for f in kept if f.name == "backpressure_changed"]) == 500
    assert ring.size_bytes == sum(f.size_bytes for f in kept) < 10**6
    assert ring.missed("c1", Cursor(7, 0)) == [kept[0]]


def test_an_event_is_told_under_the_id_that_answers_show() -> None:
    named = events.submission("EMAIL_OPEN", partitions=1, campaignId="c", eventId="mine")
    assert broadcasted(named.row) == ("c", "EMAIL_OPEN", "mine")
    minted = events.submission("ACCOUNT_HEALTH_UPDATE", partitions=1)
    assert broadcasted(minted.row) == (
        None, "ACCOUNT_HEALTH_UPDATE", str(UUID(bytes=minted.event_id)),
    )  # fmt: skip
