from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.events import LANES, EventType
from ray_tracking.pipeline.append import ORIGIN, EntryId, Header, decode_entry, encode_batch
from ray_tracking.pipeline.figures import COUNTED, Figures, Ledger, tallies
from ray_tracking.pipeline.route import partition_of
from tests.support import events

PARTITIONS = 2
WHERES = [(partition, lane) for partition in range(PARTITIONS) for lane in range(len(LANES))]
C0, C1 = (events.campaign_in(partition, PARTITIONS) for partition in range(PARTITIONS))


def header(*kinds: str, **data: Any) -> Header:
    submissions = [events.submission(kind, partitions=PARTITIONS, **data) for kind in kinds]
    return decode_entry(b"5-2", encode_batch(submissions, total=0, appended_ms=0)).header


def ledger(base: dict[str, Any] | None = None, **more: Any) -> Ledger:
    return Ledger(dict.fromkeys(WHERES, ORIGIN), PARTITIONS, {} if base is None else base, **more)


def positions(**moved: EntryId) -> dict[Any, EntryId]:
    found = dict.fromkeys(WHERES, ORIGIN)
    if "c0" in moved:
        found[partition_of(C0, PARTITIONS), 1] = moved["c0"]
    return found


def where(campaign_id: str) -> tuple[int, int]:
    return partition_of(campaign_id, PARTITIONS), 1


def named(figures: Figures | None) -> dict[str, int]:
    assert figures is not None
    return {name: n for name, n in zip(COUNTED, figures.counts, strict=True) if n}


def test_each_kind_of_event_is_counted_where_it_belongs() -> None:
    book = ledger()
    everything = [
        header(
            "EMAIL_SENT", "EMAIL_DELIVERED", "EMAIL_OPEN", "EMAIL_OPEN", "LINK_CLICK",
            "EMAIL_REPLY", "CAMPAIGN_STATUS_CHANGE", campaignId=C0,
        ),
        *(
            header("EMAIL_BOUNCE", campaignId=C0, bounceType=kind)
            for kind in ("hard", "soft", "complaint", "suppression")
        ),
    ]  # fmt: skip
    for number, one in enumerate(everything):
        book.count(where(C0), EntryId(5, number), one)
    assert named(book.figures(C0, 0)) == {
        "sent": 1, "delivered": 1, "opens": 2, "clicks": 1, "replies": 1, "hard": 1, "soft": 1,
        "complaint": 1, "suppression": 1,
    }  # fmt: skip


def test_what_belongs_to_no_campaign_is_passed_over() -> None:
    assert tallies(header("ACCOUNT_HEALTH_UPDATE")) == {}
    found = tallies(header("ACCOUNT_HEALTH_UPDATE", campaignId=C0))
    assert found[C0].counts == ()
    assert found[C0].last.type is EventType.ACCOUNT_HEALTH_UPDATE


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["EMAIL_SENT", "EMAIL_OPEN", "LINK_CLICK", "EMAIL_BOUNCE"]),
            st.sampled_from(["a", "b", "c"]),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_an_entry_of_many_campaigns_is_the_sum_of_its_events(
    given_events: list[tuple[str, str, int]],
) -> None:
    submissions = [
        events.submission(
            kind, partitions=1, campaignId=campaign, timestamp=f"2026-11-0{day}T00:00:00Z"
        )
        for kind, campaign, day in given_events
    ]
    entry = decode_entry(b"5-2", encode_batch(submissions, total=0, appended_ms=0))
    found = tallies(entry.header)
    assert found.keys() == {campaign for _, campaign, _ in given_events}
    for campaign, tally in found.items():
        mine = [
            (kind, s.occurred_us)
            for (kind, its, _), s in zip(given_events, submissions, strict=True)
            if its == campaign
        ]
        names = {"EMAIL_SENT": "sent", "EMAIL_OPEN": "opens", "LINK_CLICK": "clicks",
                 "EMAIL_BOUNCE": "hard"}  # fmt: skip
        expected = Counter(names[kind] for kind, _ in mine)
        assert {COUNTED[slot]: n for slot, n in tally.counts} == expected
        assert (tally.first_us, tally.last_us) == (
            min(at for _, at in mine),
            max(at for _, at in mine),
        )
        assert (tally.last.type, tally.last.occurred_us) == mine[-1]
        assert tally.events == len(mine)


def test_machines_stand_beside_people() -> None:
    book = ledger()
    one = header("EMAIL_OPEN", campaignId=C0)
    flags = bytearray(one.flags)
    flags[0] |= 8
    book.count(where(C0), EntryId(5, 2), Header(**_fields(one) | {"flags": bytes(flags)}))
    assert named(book.figures(C0, 0)) == {"machine_opens": 1}


def _fields(one: Header) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def test_figures_are_what_the_rows_say_and_what_stands_behind_them() -> None:
    book = ledger({C0: {"sent": 10, "unique_opens": 3}})
    book.count(where(C0), EntryId(5, 2), header("EMAIL_SENT", campaignId=C0))
    assert named(book.figures(C0, 0)) == {"sent": 11}
    # The row of that event is there now: it moves, and nothing changes.
    before = book.figures(C0, 0)
    assert before is not None
    changes = book.reconcile(positions(c0=EntryId(5, 2)), {C0: before.columns()}, [C0], 0)
    assert changes == {}
    assert named(book.figures(C0, 0)) == {"sent": 11}


def test_a_campaign_that_was_never_seen_has_zeros() -> None:
    assert named(ledger().figures("new", 0)) == {}


def test_an_event_that_became_no_row_is_taken_out_again() -> None:
    book = ledger()
    book.count(where(C0), EntryId(5, 2), header("EMAIL_SENT", "EMAIL_SENT", campaignId=C0))
    book.count(where(C0), EntryId(5, 3), header("EMAIL_SENT", campaignId=C0))
    changes = book.reconcile(positions(c0=EntryId(5, 2)), {C0: {"sent": 1}}, [C0], 0)
    change = changes[C0]
    assert change.before is not None
    assert change.after.is_below(change.before)
    assert named(change.after) == {"sent": 2}, "one row, and one event behind it"


def test_uniques_come_from_the_rows_alone() -> None:
    book = ledger()
    book.count(where(C0), EntryId(5, 2), header("EMAIL_OPEN", campaignId=C0))
    changes = book.reconcile(
        positions(c0=EntryId(5, 2)), {C0: {"opens": 1, "unique_opens": 1}}, [C0], 0
    )
    assert changes[C0].after.uniques == [1, 0, 0]
    assert not changes[C0].after.is_below(changes[C0].before)  # type: ignore[arg-type]


def test_without_the_rows_nobody_knows_the_figures() -> None:
    book = Ledger(dict.fromkeys(WHERES, EntryId(5, 7)), PARTITIONS, None)
    book.count(where(C0), EntryId(5, 8), header("EMAIL_SENT", campaignId=C0))
    assert book.figures(C0, 0) is None
    # Rows only up to where counting began, or not even so far, do not say it either.
    assert book.reconcile(dict.fromkeys(WHERES, EntryId(5, 6)), {C0: {"sent": 3}}, [C0], 0) == {}
    assert book.figures(C0, 0) is None
    changes = book.reconcile(dict.fromkeys(WHERES, EntryId(5, 7)), {C0: {"sent": 4}}, [C0], 0)
    assert changes[C0].before is None
    assert named(changes[C0].after) == {"sent": 5}


def test_rows_ahead_of_what_was_counted_have_to_wait() -> None:
    book = ledger()
    assert not book.has_read(positions(c0=EntryId(5, 2)))
    book.count(where(C0), EntryId(5, 2), header("EMAIL_SENT", campaignId=C0))
    assert book.has_read(positions(c0=EntryId(5, 2)))


def test_what_has_no_room_is_taken_for_rows_until_they_are_there() -> None:
    """Postgres is away for long: figures stay right, and are compared again later."""
    book = ledger(max_pending=3)
    for number in range(2, 12):
        book.count(where(C0), EntryId(5, number), header("EMAIL_SENT", campaignId=C0))
    assert named(book.figures(C0, 0)) == {"sent": 10}
    assert book.reconcile(positions(c0=EntryId(5, 4)), {C0: {"sent": 3}}, [C0], 0) == {}
    assert named(book.figures(C0, 0)) == {"sent": 10}
    changes = book.reconcile(positions(c0=EntryId(5, 10)), {C0: {"sent": 8}}, [C0], 0)
    assert named(changes[C0].after) == {"sent": 9}


def test_behind_a_gap_figures_are_unknown_until_the_rows_say_them() -> None:
    book = ledger()
    book.count(where(C0), EntryId(5, 2), header("EMAIL_SENT", campaignId=C0))
    book.count(where(C1), EntryId(5, 2), header("EMAIL_SENT", campaignId=C1))
    assert book.skip(where(C0), EntryId(6, 9)) == [C0]
    assert book.figures(C0, 0) is None
    assert named(book.figures(C1, 0)) == {"sent": 1}
    book.reconcile(positions(c0=EntryId(6, 9)), {C0: {"sent": 40}}, [C0], 0)
    assert named(book.figures(C0, 0)) == {"sent": 40}


def test_campaigns_that_are_forgotten_are_not_taken_for_new() -> None:
    book = ledger({f"c{number}": {"sent": number} for number in range(5)}, max_campaigns=3)
    assert named(book.figures("c4", 0)) == {"sent": 4}
    assert book.figures("c0", 0) is None


@pytest.mark.parametrize("name", ["first_us", "last_us"])
def test_the_span_of_a_campaign_is_that_of_all_its_events(name: str) -> None:
    book = ledger()
    for number, day in enumerate((3, 1, 2)):
        book.count(
            where(C0),
            EntryId(5, number),
            header("EMAIL_SENT", campaignId=C0, timestamp=f"2026-11-0{day}T00:00:00Z"),
        )
    found = book.figures(C0, 0)
    assert found is not None
    day = {"first_us": 1, "last_us": 3}[name]
    assert getattr(found, name) == 1_793_491_200_000_000 + (day - 1) * 86_400_000_000
