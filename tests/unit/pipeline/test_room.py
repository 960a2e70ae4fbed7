"""Room: a bound on what waits, by events and by bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.room import MAX_WAITING_BYTES, Room

MAX_EVENTS, MAX_BYTES = 10, 1000


def room() -> Room:
    return Room(MAX_EVENTS, MAX_BYTES)


def test_there_is_room_up_to_so_many_events() -> None:
    it = room()
    assert it.take(9, 1)
    assert not it.take(2, 1)
    assert it.take(1, 1)
    assert not it.take(1, 1)
    it.leave(1, 1)
    assert it.take(1, 1)


def test_there_is_room_up_to_so_many_bytes() -> None:
    it = room()
    assert it.take(1, 900)
    assert not it.take(1, 101)
    assert it.take(1, 100)
    assert not it.take(1, 1)
    it.leave(1, 900)
    assert it.take(1, 900)


def test_an_empty_room_takes_a_batch_that_would_never_fit() -> None:
    """Its sender would come again for ever."""
    for events, size_bytes in ((11, 1), (1, 1001)):
        it = room()
        assert it.take(events, size_bytes)
        assert not it.take(1, 1)
        it.leave(events, size_bytes)
        assert it.take(events, size_bytes)


def test_a_batch_is_let_in_whole_or_not_at_all() -> None:
    it = room()
    it.take(6, 60)
    assert not it.take(5, 50)
    assert (it.events, it.size_bytes) == (6, 60)


def test_nothing_finds_room_in_a_full_one() -> None:
    """A call that carries nothing asks only whether anybody answers."""
    it = room()
    it.take(10, 1000)
    assert it.take(0, 0)
    it.leave(0, 0)
    assert (it.events, it.size_bytes) == (10, 1000)


def test_bytes_are_bounded_also_where_only_events_are_said() -> None:
    it = Room(1_000_000)
    assert it.take(1, MAX_WAITING_BYTES)
    assert not it.take(1, 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 14), st.integers(0, 1400)), max_size=40))
def test_what_waits_is_bounded_and_counted(steps: list[tuple[bool, int, int]]) -> None:
    it, inside = room(), []
    for comes, events, size_bytes in steps:
        if comes:
            fits = not sum(e for e, _ in inside) or (
                sum(e for e, _ in inside) + events <= MAX_EVENTS
                and sum(b for _, b in inside) + size_bytes <= MAX_BYTES
            )
            assert it.take(events, size_bytes) == fits
            if fits:
                inside.append((events, size_bytes))
        elif inside:
            it.leave(*inside.pop(0))
        assert it.events == sum(e for e, _ in inside)
        assert it.size_bytes == sum(b for _, b in inside)
