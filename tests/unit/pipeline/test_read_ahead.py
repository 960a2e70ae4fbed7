"""Reading ahead: no read is much larger than it may be, and every stream has its turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.append import Entry, EntryId, Header, Kind
from ray_tracking.pipeline.backlog import size_bytes
from ray_tracking.pipeline.read_ahead import ReadAhead, Reading, ReadPolicy

STREAMS = [(number, 1) for number in range(16)]
MIB = 1024 * 1024


def entries(number: int, body_bytes: int) -> list[Entry]:
    header = Header(kind=Kind.BATCH, count=1)
    return [Entry(EntryId(1, seq), header, bytes(body_bytes)) for seq in range(number)]


def read(ahead: ReadAhead, behind: dict[tuple[int, int], int], body_bytes: int) -> Reading:
    """One read of streams that have so many entries left, all of one size."""
    reading = ahead.plan(STREAMS)
    found = {}
    for where in reading.wheres:
        number = min(reading.max_entries, behind.get(where, 0))
        if number:
            found[where] = entries(number, body_bytes)
            behind[where] -= number
    ahead.learn(reading, found)
    return reading


def test_the_first_read_takes_every_entry_for_as_large_as_one_can_be() -> None:
    reading = ReadAhead(STREAMS).plan(STREAMS)

    assert len(reading.wheres) * reading.max_entries * MIB <= 4 * MIB
    assert not reading.wait


def test_large_entries_are_read_a_few_streams_at_a_time_in_turn() -> None:
    ahead = ReadAhead(STREAMS)
    behind = dict.fromkeys(STREAMS, 10)
    turns: Counter[tuple[int, int]] = Counter()
    for _ in range(8):
        reading = read(ahead, behind, MIB)
        assert len(reading.wheres) * reading.max_entries <= 4
        turns.update(reading.wheres)

    assert len(turns) == len(STREAMS)
    assert max(turns.values()) - min(turns.values()) <= 1


def test_small_entries_are_read_by_the_hundred() -> None:
    ahead = ReadAhead(STREAMS)
    behind = dict.fromkeys(STREAMS, 10_000)
    for _ in range(60):
        reading = read(ahead, behind, 300)

    assert reading.max_entries * len(reading.wheres) == ReadPolicy().max_entries


def test_who_has_no_more_is_waited_for() -> None:
    """All of them in one question, which the first entry anywhere ends."""
    ahead = ReadAhead(STREAMS)
    behind = {STREAMS[3]: 5}
    reading = read(ahead, behind, 300)
    while behind[STREAMS[3]] or not reading.wait:
        reading = read(ahead, behind, 300)

    assert reading.wheres == STREAMS
    assert ahead.behind == []


def test_a_stream_without_room_is_not_read_and_not_forgotten() -> None:
    ahead = ReadAhead([(0, 1), (1, 1)])
    reading = ahead.plan([(1, 1)])
    assert reading.wheres == [(1, 1)]
    ahead.learn(reading, {})

    assert ahead.plan([(1, 1)]).wait
    assert ahead.plan([(0, 1), (1, 1)]) == Reading([(0, 1)], 4, wait=False)


def test_a_read_is_no_larger_than_what_all_queues_may_take() -> None:
    """One stream alone could have had a whole read on top of its share, and so could each."""
    ahead = ReadAhead(STREAMS)
    ahead.learn(ahead.plan(STREAMS), {where: entries(1, MIB) for where in STREAMS[:4]})

    assert ahead.plan([STREAMS[0]], 4 * MIB).max_entries == 3
    assert ahead.plan([STREAMS[0]], 2 * MIB).max_entries == 1
    assert ahead.plan(STREAMS[:3], 0) == Reading([STREAMS[0]], 1, wait=False)


@given(st.lists(st.tuples(st.integers(100, MIB), st.integers(1, 400)), min_size=1, max_size=6))
def test_everything_is_read_and_each_read_is_bounded(loads: list[tuple[int, int]]) -> None:
    """Entries of one size: the bound holds as soon as that is known."""
    for body_bytes, number in loads:
        ahead = ReadAhead(STREAMS)
        behind = {STREAMS[at % 16]: number // (at + 1) for at in range(5)}
        one = size_bytes(entries(1, body_bytes)[0])
        while any(behind.values()):
            reading = read(ahead, behind, body_bytes)
            assert len(reading.wheres) * reading.max_entries * one <= 4 * MIB + one
