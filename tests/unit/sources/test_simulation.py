"""The plan of a simulation: repeatable, believable, and valid."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from itertools import islice
from random import Random

import pytest

from ray_tracking.events import EventType
from ray_tracking.pipeline.validate import validate_item
from ray_tracking.sources.simulation import Planned, Shape, plan
from ray_tracking.sources.simulation_people import reader
from ray_tracking.stores.geo import GeoTable

START_S = 1_795_000_000.0
RATE_PER_S = 200.0
SHAPE = Shape(seed=7, start_s=START_S, rate_per_s=RATE_PER_S, campaigns=3)


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return list(islice(plan(SHAPE), 20_000))


def test_the_same_seed_is_the_same_plan_and_another_is_not(planned: list[Planned]) -> None:
    again = list(islice(plan(SHAPE), 500))
    other = list(islice(plan(Shape(8, START_S, RATE_PER_S, campaigns=3)), 500))

    assert again == planned[:500]
    assert not {_id(event) for event in other} & {_id(event) for event in again} - {None}


def test_every_event_is_valid_when_it_is_played(planned: list[Planned]) -> None:
    for place, event in enumerate(planned):
        item = {"eventType": event.event_type, "eventData": event.data}
        played_s = START_S + place / RATE_PER_S
        valid = validate_item(item, now_s=played_s)

        assert valid.data == event.data, "nothing had to be cleaned"
        assert played_s - 3 * 3600 < valid.occurred_us / 1e6 <= played_s, "never ahead"


def test_the_figures_are_those_of_a_campaign(planned: list[Planned]) -> None:
    first = [event for event in planned if not event.repeat]
    count = Counter(event.event_type for event in first)
    openers = {event.data["emailId"] for event in first if event.event_type is EventType.EMAIL_OPEN}
    delivered = count[EventType.EMAIL_DELIVERED]

    assert set(count) == set(EventType)
    assert delivered / count[EventType.EMAIL_SENT] == pytest.approx(0.97, abs=0.01)
    assert len(openers) / delivered == pytest.approx(0.40, abs=0.03)
    assert count[EventType.EMAIL_OPEN] > len(openers) * 1.2, "some open several times"
    assert count[EventType.LINK_CLICK] / delivered == pytest.approx(0.08, abs=0.015)
    assert count[EventType.EMAIL_REPLY] / delivered == pytest.approx(0.03, abs=0.01)
    assert count[EventType.EMAIL_BOUNCE] / count[EventType.EMAIL_SENT] == pytest.approx(
        0.03, abs=0.01
    )
    bounces = {event.data.get("bounceType") for event in first} - {None}
    assert bounces == {"hard", "soft", "complaint", "suppression"}
    assert {event.data.get("autoReply") for event in first} == {True, False, None}


def test_a_mail_is_sent_before_it_is_delivered_and_opened_before_it_is_clicked(
    planned: list[Planned],
) -> None:
    history = defaultdict(list)
    for event in planned:
        if "emailId" in event.data and not event.repeat:
            history[event.data["emailId"]].append(event)

    for events in history.values():
        types = [event.event_type for event in events]
        times = [datetime.fromisoformat(event.data["timestamp"]) for event in events]
        assert types[0] is EventType.EMAIL_SENT
        assert times == sorted(times)
        if EventType.LINK_CLICK in types:
            assert types.index(EventType.EMAIL_OPEN) < types.index(EventType.LINK_CLICK)


def test_each_identity_is_used_once_so_that_the_books_can_balance(
    planned: list[Planned],
) -> None:
    """A second hit on the same token would be a duplicate that no answer tells of."""
    first = [event for event in planned if not event.repeat]
    ids = [_id(event) for event in first if event.via in ("events", "batch")]
    hits = [
        (event.via, event.data["emailId"], event.data.get("linkUrl"))
        for event in first
        if event.via in ("pixel", "click")
    ]

    assert None not in ids
    assert len(set(ids)) == len(ids)
    assert len(set(hits)) == len(hits)
    assert all(_id(event) is None for event in first if event.via in ("pixel", "click"))
    assert all(event.data["linkUrl"] in event.links for event in first if event.via == "click")


def test_repeats_are_the_same_event_soon_after(planned: list[Planned]) -> None:
    places: dict[str, int] = {}
    repeats = 0
    for place, event in enumerate(planned):
        if event.repeat:
            repeats += 1
            before = planned[places[event.data["eventId"]]]
            assert event._replace(repeat=False) == before
            assert place - places[event.data["eventId"]] < 100
        elif event_id := _id(event):
            places[event_id] = place

    assert repeats / len(places) == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_are_kept_at_their_ends(share: float) -> None:
    shape = Shape(3, START_S, RATE_PER_S, 2, batch_share=share, repeat_share=0, tracked_share=share)
    events = list(islice(plan(shape), 2000))
    ways = {event.via for event in events}

    assert ways == ({"batch", "pixel", "click"} if share else {"events"})
    assert not any(event.repeat for event in events)


def test_no_campaign_gets_much_more_than_its_share(planned: list[Planned]) -> None:
    """The default limits are per campaign, and the command counts on this."""
    count = Counter(event.data.get("campaignId") for event in planned)
    del count[None]

    assert len(count) == SHAPE.campaigns
    assert max(count.values()) < 1.1 * len(planned) / SHAPE.campaigns


def test_readers_can_be_located() -> None:
    rng = Random(1)
    table = GeoTable()
    readers = [reader(rng) for _ in range(200)]

    assert all(table.locate(someone.address) for someone in readers)
    assert len({someone.mail_agent for someone in readers}) > 5


def _id(event: Planned) -> str | None:
    event_id: str | None = event.data.get("eventId")
    return event_id
