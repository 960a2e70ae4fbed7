"""Following the log: no entry is missed without a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.append import ORIGIN, Entry, EntryId, Kind
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.write import FlushPolicy, Follower, LogGap
from tests.unit.pipeline.samples import entry

MARKER, CHAIN, BATCH = Kind.MARKER, Kind.CHAIN, Kind.BATCH


def epoch(number: int, batches: int, previous: EntryId) -> list[Entry]:
    """What one owner leaves in a lane."""
    return [
        entry(number, 0, MARKER),
        entry(number, 1, CHAIN, str(previous)),
        *[entry(number, seq) for seq in range(2, 2 + batches)],
    ]


@st.composite
def logs(draw: st.DrawFn, *, abandoned: bool = False) -> list[Entry]:
    """Several owners in a row; abandoned: the marker of one that came no further may be there."""
    entries: list[Entry] = []
    number = draw(st.integers(1, 5))
    for batches in draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)):
        previous = entries[-1].id if entries else ORIGIN
        for _ in range(draw(st.integers(0, 2)) if abandoned else 0):
            entries.append(entry(number, 0, MARKER))
            number += 1
        entries += epoch(number, batches, previous)
        number += draw(st.integers(1, 1000))
    return entries


def follow(entries: list[Entry], start: EntryId = ORIGIN) -> int:
    """How many entries are accepted before a gap; all of them when there is none."""
    follower = Follower(start)
    for place, one in enumerate(entries):
        before = follower.position
        try:
            follower.accept(one)
        except LogGap:
            assert follower.position == before
            return place
        assert follower.position == one.id
    return len(entries)


@given(logs(abandoned=True))
def test_what_owners_write_is_accepted(entries: list[Entry]) -> None:
    assert follow(entries) == len(entries)


@given(logs(), st.data())
def test_a_reader_may_begin_after_any_entry(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))

    assert follow(entries[place + 1 :], entries[place].id) == len(entries) - place - 1


@given(logs(), st.data())
def test_an_entry_that_is_missing_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    """Wherever it stood, but for the end, where nothing is there that could tell."""
    place = data.draw(st.integers(0, len(entries) - 2))
    missing = entries[:place] + entries[place + 1 :]

    # The chain tells that an epoch lost its end; everything else is noticed at once.
    lost_end = entries[place + 1].header.kind is MARKER
    assert follow(missing) == (place + 1 if lost_end else place)


@given(logs(), st.data())
def test_an_entry_that_comes_twice_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    later = data.draw(st.integers(place + 1, len(entries)))
    twice = [*entries[:later], entries[place], *entries[later:]]

    assert follow(twice) == later


@given(logs(), st.data())
def test_entries_in_another_order_are_noticed(entries: list[Entry], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 2))
    later = data.draw(st.integers(place + 1, len(entries) - 1))
    swapped = list(entries)
    swapped[place], swapped[later] = swapped[later], swapped[place]

    assert place <= follow(swapped) < len(swapped)


def test_what_is_lost_before_a_marker_that_was_given_up_is_noticed() -> None:
    """A takeover that dies between marker and chain must not hide it."""
    first = epoch(1, 3, ORIGIN)
    given_up = [entry(2, 0, MARKER), entry(3, 0, MARKER)]
    after = epoch(4, 1, EntryId(1, 4))

    assert follow(first + given_up + after) == 10
    assert follow(first[:-1] + given_up + after) == 7


def test_a_whole_epoch_that_is_missing_is_noticed_by_the_next_chain() -> None:
    first, second = epoch(1, 3, ORIGIN), epoch(2, 3, EntryId(1, 4))
    third = epoch(3, 3, EntryId(2, 4))

    assert follow(first + second + third) == 15
    assert follow(first + third) == 6


@pytest.mark.parametrize("previous", ["1-3", "1-5", "0-0", "2-0", ""])
def test_a_chain_that_names_another_entry_is_a_gap(previous: str) -> None:
    """A zombie's append may stand between what was read and the marker, or may be lost."""
    entries = [*epoch(1, 3, ORIGIN), entry(2, 0, MARKER), entry(2, 1, CHAIN, previous)]

    assert follow(entries) == 6


@pytest.mark.parametrize(
    "odd",
    [
        entry(1, 2),  # no chain
        entry(1, 1, BATCH),
        entry(1, 1, MARKER),
        entry(1, 1, CHAIN, "0-9"),
        entry(2, 0, BATCH),
        entry(2, 0, CHAIN, "1-0"),
        entry(2, 1, CHAIN, "1-0"),
        entry(2, 2),
        entry(0, 1),
        entry(1, 0, MARKER),
    ],
)
def test_after_a_marker_there_is_its_chain_or_a_later_marker(odd: Entry) -> None:
    follower = Follower(ORIGIN)
    follower.accept(entry(1, 0, MARKER))

    with pytest.raises(LogGap, match=rf"^the log has {odd.id} .* where the successor of 1-0"):
        follower.accept(odd)
    follower.accept(entry(1, 1, CHAIN, "0-0"))


@pytest.mark.parametrize("kind", [MARKER, CHAIN])
def test_inside_an_epoch_there_are_only_batches(kind: Kind) -> None:
    assert follow([*epoch(1, 2, ORIGIN), entry(1, 4, kind, "1-3")]) == 4


def test_a_reader_that_is_behind_the_trimmed_log_says_so() -> None:
    """A new database, or a position of long ago: events are missing."""
    assert follow(epoch(1, 9, ORIGIN)[5:]) == 0


# -- when to flush -----------------------------------------------------------


def test_a_flush_is_due_when_it_is_full_or_old() -> None:
    wait_ms = FlushPolicy.wait_ms

    assert wait_ms(1000, 0, 1000, 100) == 0
    assert wait_ms(999, 100, 1000, 100) == 0
    assert wait_ms(1, 250, 1000, 100) == 0
    assert wait_ms(999, 30, 1000, 100) == 70
    assert wait_ms(999, 30, 500, 100) == 0
    assert wait_ms(1, 0, 1000, 0) == 0


@pytest.mark.parametrize(
    ("mode", "level", "linger_ms"),
    [
        (Mode.REALTIME, Level.NORMAL, 0),
        (Mode.HYBRID, Level.NORMAL, 50),
        (Mode.HYBRID, Level.WARNING, 50),
        (Mode.BATCH, Level.CRITICAL, 100),
        (Mode.BATCH, Level.EMERGENCY, 0),
    ],
)
def test_the_mode_says_how_long_a_flush_waits_for_company(
    mode: Mode, level: Level, linger_ms: int
) -> None:
    assert FlushPolicy(max_age_ms=100, hybrid_age_ms=50).linger_ms(mode, level) == linger_ms


@pytest.mark.parametrize(("mode", "delay_ms"), [("REALTIME", 0), ("HYBRID", 0), ("BATCH", 5000)])
def test_only_what_goes_in_batches_waits_for_the_end_of_a_burst(mode: str, delay_ms: int) -> None:
    assert FlushPolicy(burst_delay_ms=5000).delay_ms(Mode(mode)) == delay_ms
    assert FlushPolicy().delay_ms(Mode(mode)) == 0


def test_hybrid_never_waits_longer_than_batch() -> None:
    policy = FlushPolicy(max_age_ms=25, hybrid_age_ms=50)

    assert policy.linger_ms(Mode.HYBRID, Level.NORMAL) == 25
