"""The backlog of a pump: bounded, in order, and nobody's way is blocked by another's wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.append import Entry, EntryId, Header, Kind
from ray_tracking.pipeline.backlog import Backlog, size_bytes

A, B, C = (0, 1), (1, 1), (2, 1)


def batch(seq: int, events: int = 1, body: bytes = b"") -> Entry:
    return Entry(EntryId(1, seq), Header(kind=Kind.BATCH, count=events), body)


def marker(epoch: int) -> Entry:
    return Entry(EntryId(epoch, 0), Header(kind=Kind.MARKER), b"")


def test_the_stream_that_waits_longest_comes_first() -> None:
    backlog = Backlog([A, B], 10**6)
    backlog.add(B, batch(2, 5), 100)
    backlog.add(A, batch(2, 5), 101)
    backlog.add(B, batch(3, 5), 102)
    assert backlog.oldest_ms == 100

    assert list(backlog.take(5)) == [B]
    assert backlog.oldest_ms == 101
    assert list(backlog.take(5)) == [A]
    assert list(backlog.take(5)) == [B]
    assert (backlog.take(5), backlog.oldest_ms) == ({}, None)


def test_a_flush_has_whole_entries_of_several_streams() -> None:
    backlog = Backlog([A, B], 10**6)
    backlog.add(A, batch(2, 3), 1)
    backlog.add(B, batch(2, 3), 2)
    backlog.add(B, batch(3, 3), 3)

    taken = backlog.take(5)

    assert taken == {A: [batch(2, 3)], B: [batch(2, 3)]}
    assert backlog.events == 3


def test_a_stream_that_may_not_go_holds_up_nobody_else() -> None:
    backlog = Backlog([A, B], 10**6)
    for seq, events in enumerate([1, 7, 1], start=2):
        backlog.add(A, batch(seq, events), seq)
        backlog.add(B, batch(seq), seq)

    taken = backlog.take(100, lambda where, header: header.count < 7)

    assert [entry.id.seq for entry in taken[A]] == [2]
    assert [entry.id.seq for entry in taken[B]] == [2, 3, 4]


def test_no_stream_ends_with_a_marker() -> None:
    backlog = Backlog([A, B], 10**6)
    backlog.add(A, batch(2), 1)
    backlog.add(A, marker(5), 2)
    backlog.add(A, marker(6), 3)
    backlog.add(B, marker(5), 4)

    assert backlog.take(100) == {A: [batch(2)]}
    assert backlog.take(100) == {}

    chain = Entry(EntryId(6, 1), Header(kind=Kind.CHAIN), b"")
    backlog.add(A, chain, 5)
    assert backlog.take(100) == {A: [marker(5), marker(6), chain]}


def test_each_stream_has_a_share_of_the_room() -> None:
    """One that has to wait may fill its own."""
    backlog = Backlog([A, B], 20_000)
    while backlog.has_room(A):
        backlog.add(A, batch(2, body=b"x" * 1000), 1)

    assert 10_000 <= backlog.size_bytes < 12_000
    assert backlog.has_room(B)
    backlog.take(1)
    assert backlog.has_room(A)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([A, B, C]), st.integers(0, 9), st.binary(max_size=20)),
        st.integers(1, 30),
    ),
    max_size=60,
)


@given(steps)
def test_everything_comes_out_once_in_the_order_of_its_stream(steps: list[object]) -> None:
    backlog = Backlog([A, B, C], 10**6)
    added: dict[object, list[Entry]] = {A: [], B: [], C: []}
    taken: dict[object, list[Entry]] = {A: [], B: [], C: []}
    for now_ms, step in enumerate([*steps, 10**6]):
        if isinstance(step, int):
            for where, entries in backlog.take(step).items():
                taken[where] += entries
        else:
            where, events, body = step
            entry = batch(len(added[where]) + 2, events, body)
            backlog.add(where, entry, now_ms)
            added[where].append(entry)
        waiting = [entry for w in added for entry in added[w][len(taken[w]) :]]
        assert backlog.events == sum(entry.header.count for entry in waiting)
        assert backlog.size_bytes == sum(map(size_bytes, waiting))
    assert taken == added
