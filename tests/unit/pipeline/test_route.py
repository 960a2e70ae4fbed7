"""Routing: which events are one event, and where each belongs."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.events import LANES, Agent, EventType, Lane, account_key
from ray_tracking.pipeline.route import (
    BOUNCE_CODES,
    BOUNCE_SHIFT,
    HIT,
    IDENTITY_SHIFT,
    MACHINE,
    SECRET_BYTES,
    SINGLE,
    TYPE_MASK,
    Identity,
    Router,
    Submission,
    at_time,
    event_ids,
    partition_of,
    received_ms,
    received_span_ms,
)
from ray_tracking.pipeline.rows import decode_row
from tests.unit.pipeline.samples import NOW, NOW_MS, OWN_OPTIONAL, REQUIRED, minted, valid

ROUTER = Router(16, bytes(SECRET_BYTES))
TIMED = [
    EventType.EMAIL_SENT,
    EventType.EMAIL_DELIVERED,
    EventType.EMAIL_OPEN,
    EventType.LINK_CLICK,
]
EXACT = [event_type for event_type in EventType if event_type not in TIMED]


def route(event_type: str, *, agent: Agent | None = None, **fields: Any) -> Submission:
    """A routed event; names in lower case are options of the router."""
    options = {name: fields.pop(name) for name in ("token", "idempotency_key") if name in fields}
    event = valid(event_type, **fields)
    if agent is not None:
        event = type(event)(event.type, event.data, event.occurred_us, event.high, agent)
    return ROUTER.route(event, minted(1), **options)


def identity(submission: Submission) -> Identity:
    return Identity(submission.flags >> IDENTITY_SHIFT & 0b11)


def same(one: Submission, other: Submission) -> bool:
    return one.digest == other.digest


# -- which events are one ----------------------------------------------------


@pytest.mark.parametrize("event_type", TIMED)
def test_opens_and_the_like_are_known_by_campaign_lead_email_and_link(
    event_type: EventType,
) -> None:
    """What else they say (a second device, another time) makes them no other event."""
    first = route(event_type)

    assert identity(first) is Identity.TIMED
    other = "2026-11-22T00:00:00Z"
    assert same(first, route(event_type, userAgent="x", customData={"n": 1}, timestamp=other))
    assert same(first, route(event_type, **OWN_OPTIONAL[event_type]))
    for name in REQUIRED[event_type].keys() - {"timestamp"}:
        assert not same(first, route(event_type, **{name: "https://other.example"}))


def test_events_of_two_types_are_never_one() -> None:
    digests = {route(event_type).digest for event_type in EventType}

    assert len(digests) == len(EventType)


@pytest.mark.parametrize("event_type", EXACT)
def test_other_events_are_the_same_only_as_a_whole(event_type: EventType) -> None:
    """Paused, running, paused again is three events."""
    first = route(event_type)

    assert identity(first) is Identity.EXACT
    assert same(first, route(event_type))
    assert not same(first, route(event_type, timestamp="2026-11-23T19:00:00.001Z"))
    assert not same(first, route(event_type, customData={"n": 1}))
    for name, value in OWN_OPTIONAL[event_type].items():
        assert not same(first, route(event_type, **{name: value}))


@pytest.mark.parametrize("event_type", EXACT)
@pytest.mark.parametrize(
    "spelling", ["2026-11-23T19:00:00.000Z", "2026-11-23T20:00:00+01:00", "20261123T190000Z"]
)
def test_a_moment_is_the_same_however_it_is_written(event_type: EventType, spelling: str) -> None:
    """A retry through another library may write the same moment in another way."""
    assert same(route(event_type), route(event_type, timestamp=spelling))


def test_the_order_of_fields_makes_no_other_event() -> None:
    one = route("EMAIL_REPLY", customData={"a": 1, "b": {"c": 1, "d": 2}}, subject="s")
    other = route("EMAIL_REPLY", subject="s", customData={"b": {"d": 2, "c": 1}, "a": 1})

    assert same(one, other)


@pytest.mark.parametrize("event_type", EventType)
def test_a_callers_id_is_the_identity_in_its_campaign(event_type: EventType) -> None:
    """With an id, the rest may differ: it neither records nor matches a fingerprint."""
    given_id = route(event_type, eventId="e1")

    assert identity(given_id) is Identity.GIVEN
    assert same(given_id, route(event_type, eventId="e1", customData={"other": True}))
    assert same(given_id, route(event_type, idempotency_key="e1"))
    assert same(given_id, route(event_type, eventId="e1", idempotency_key="ignored"))
    assert not same(given_id, route(event_type, eventId="e2"))
    assert not same(given_id, route(event_type))
    assert not same(given_id, route(event_type, eventId="e1", campaignId="c2"))


def test_an_id_belongs_to_a_campaign_and_not_to_a_type() -> None:
    assert same(route("EMAIL_OPEN", eventId="e1"), route("EMAIL_REPLY", eventId="e1"))


def test_a_hit_is_its_token() -> None:
    """Repeats inside the window are one event by definition, whatever they say."""
    hit = route("EMAIL_OPEN", token="t1")

    assert identity(hit) is Identity.EXACT
    later = route("EMAIL_OPEN", token="t1", timestamp="2026-11-22T00:00:00Z", userAgent="x")
    assert same(hit, later)
    assert not same(hit, route("EMAIL_OPEN", token="t2"))
    assert same(hit, route("EMAIL_OPEN", token="t1", idempotency_key="a proxy's"))
    assert not same(hit, route("EMAIL_OPEN"))
    assert not same(hit, route("EMAIL_OPEN", eventId="t1"))


def test_a_prefetch_does_not_hide_the_reader() -> None:
    """A HEAD is stored as a machine's; the GET that follows is another event."""
    get, head = route("EMAIL_OPEN", token="t"), route("EMAIL_OPEN", token="t", agent=Agent.MACHINE)

    assert not same(get, head)
    assert not same(head, route("EMAIL_OPEN", token="t", agent=Agent.HUMAN))


@given(st.lists(st.text("ab|/", min_size=1, max_size=3), min_size=3, max_size=3, unique=True))
def test_no_shift_of_letters_between_fields_makes_two_events_one(parts: list[str]) -> None:
    names = ("campaignId", "leadId", "emailId")
    one = route("EMAIL_OPEN", **dict(zip(names, parts, strict=True)))
    moved = [parts[0] + parts[1], parts[2], parts[0]]
    other = route("EMAIL_OPEN", **dict(zip(names, moved, strict=True)))

    assert same(one, other) is (parts == moved)


def test_the_hash_is_keyed_so_that_nobody_can_aim_at_somebody_elses_event() -> None:
    event = valid("EMAIL_OPEN")
    digests = {Router(16, bytes([n]) * 16).route(event, minted(1)).digest for n in range(5)}

    assert len(digests) == 5
    assert all(len(digest) == 8 for digest in digests)


def test_the_hash_is_the_same_after_every_release() -> None:
    """It stands in the log: another hash would make duplicates of a window into new events."""
    pinned = {
        "timed": route("LINK_CLICK").digest.hex(),
        "exact": route("CAMPAIGN_STATUS_CHANGE").digest.hex(),
        "given": route("EMAIL_OPEN", eventId="e1").digest.hex(),
        "hit": route("EMAIL_OPEN", token="t1").digest.hex(),
    }

    assert pinned == {
        "timed": "8eb9e1480382ff41",
        "exact": "f413a5534a06e477",
        "given": "aab3e1098b6b7660",
        "hit": "906e2c3b45131677",
    }


# -- where it goes -----------------------------------------------------------


def test_the_key_is_the_campaign_or_the_account_where_there_is_none() -> None:
    assert route("EMAIL_OPEN", accountId="a").key == "c1"
    assert route("ACCOUNT_HEALTH_UPDATE").key == account_key("a1")
    assert route("ACCOUNT_HEALTH_UPDATE", campaignId="c1").key == "c1"


@given(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5))
def test_an_account_is_never_taken_for_a_campaign(account: str, campaign: str) -> None:
    """No identifier has the mark in it: validation refuses control characters."""
    mark = account_key("")

    assert account_key(account) != campaign or mark in campaign


def test_a_key_has_the_same_partition_for_ever() -> None:
    """The log depends on it: pinned, so that no release moves a campaign."""
    keys = ["c1", "campaign_123", "é", account_key("a1"), ""]

    assert [partition_of(key, 16) for key in keys] == [4, 10, 3, 13, 8]
    assert [partition_of(key, 3) for key in keys] == [0, 0, 0, 0, 2]


@pytest.mark.parametrize("partitions", [1, 7, 16])
def test_campaigns_are_spread_over_the_partitions(partitions: int) -> None:
    counts = Counter(partition_of(f"campaign-{n}", partitions) for n in range(5000))

    assert set(counts) == set(range(partitions))
    assert max(counts.values()) < 1.3 * 5000 / partitions


@pytest.mark.parametrize("event_type", EventType)
def test_a_submission_says_what_the_shard_needs_to_know(event_type: EventType) -> None:
    event = valid(event_type)
    plain = ROUTER.route(event, minted(1))
    single = ROUTER.route(event, minted(1), single=True)
    hit = ROUTER.route(event, minted(1), token="t")

    assert list(EventType)[plain.flags & TYPE_MASK] is event_type
    assert plain.partition == partition_of(plain.key, 16)
    assert LANES[plain.lane] is (Lane.HIGH if event.high else Lane.NORMAL)
    assert plain.occurred_us == event.occurred_us
    assert plain.event_id == minted(1)
    assert not plain.flags & (SINGLE | HIT | MACHINE)
    assert single.flags == plain.flags | SINGLE
    assert hit.flags & HIT
    assert plain.size_bytes > len(plain.row)
    assert decode_row(plain.row)["received_at"] == NOW


@pytest.mark.parametrize("kind", BOUNCE_CODES)
def test_the_flags_of_a_bounce_say_which(kind: str) -> None:
    assert route("EMAIL_BOUNCE", bounceType=kind).flags >> BOUNCE_SHIFT == BOUNCE_CODES[kind]


def test_the_flags_say_when_a_machine_was_it() -> None:
    assert route("EMAIL_OPEN", agent=Agent.MACHINE).flags & MACHINE
    assert not route("EMAIL_OPEN", agent=Agent.HUMAN).flags & MACHINE


# -- ids ---------------------------------------------------------------------


@given(st.integers(0, 2**48 - 1), st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_event_ids_are_uuids_of_version_7(now_ms: int, randoms: list[bytes]) -> None:
    ids = event_ids(now_ms, b"".join(randoms))

    assert len(ids) == len(randoms)
    for raw, random in zip(ids, randoms, strict=True):
        uuid = UUID(bytes=raw)
        assert (uuid.version, uuid.variant) == (7, RFC_4122)
        assert uuid.int >> 80 == now_ms == received_ms(raw)
        assert raw[9:] == random[9:]


@given(st.binary(min_size=16, max_size=16), st.integers(0, 79))
def test_all_random_bits_but_those_of_version_and_variant_count(random: bytes, bit: int) -> None:
    flipped = (int.from_bytes(random, "big") ^ 1 << bit).to_bytes(16, "big")
    unused = bit in (76, 77, 78, 79, 62, 63)

    assert (event_ids(NOW_MS, random) == event_ids(NOW_MS, flipped)) is unused


@given(st.integers(0, 2**48 - 2), st.binary(min_size=16, max_size=16))
def test_ids_sort_by_time(now_ms: int, random: bytes) -> None:
    assert event_ids(now_ms, b"\xff" * 16) < event_ids(now_ms + 1, random)


@given(*[st.integers(0, 2**48 - 1)] * 2, st.binary(min_size=16, max_size=16))
def test_an_id_at_another_time_is_one_that_was_made_then(now_ms: int, ms: int, rnd: bytes) -> None:
    (raw,) = event_ids(now_ms, rnd)

    assert at_time(raw, ms) == event_ids(ms, rnd)[0]


@given(st.lists(st.integers(0, 2**48 - 1), min_size=1, max_size=20))
def test_the_span_of_ids_is_from_the_earliest_to_the_latest(times_ms: list[int]) -> None:
    raw = b"".join(minted(n, at_ms) for n, at_ms in enumerate(times_ms))

    assert received_span_ms(raw) == (min(times_ms), max(times_ms))
