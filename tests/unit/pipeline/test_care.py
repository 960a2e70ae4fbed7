"""An event that ends its writer is found in three deaths; its neighbours come to no harm."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.care import WHOLE_ENTRY, Standing


class Death(Exception):
    """The process has ended."""


@dataclass
class Stream:
    """A position with one entry behind it, and writers that try to get past it."""

    rows: int
    killers: set[int]
    attempts: int = 1  # somebody moved the position here
    trying: int | None = None
    deadly: tuple[int, ...] = ()
    letters: set[int] | None = None
    tried: list[int] = field(default_factory=list)

    def hold(self, rows: set[int]) -> None:
        """Have some rows in hand."""
        if rows & self.killers:
            raise Death

    def meet(self) -> None:
        """A writer that is at work comes to the entry."""
        self.hold(set(range(self.rows)))
        self.letters = set()

    def take_over(self) -> Standing:
        """As the statement in Postgres does it."""
        self.attempts += 1
        if self.trying is not None and self.trying >= 0:
            self.deadly += (self.trying,)
            self.trying = None
        return Standing(EntryId(1, 1), self.attempts, self.trying, self.deadly)

    def recover(self, standing: Standing) -> None:
        """As :mod:`ray_tracking.actors.recovery` does it."""
        assert standing.is_suspicious
        for row in standing.rows_to_try(self.rows):
            self.trying = row
            self.tried.append(row)
            self.hold({row})
        self.trying = WHOLE_ENTRY
        self.hold(set(range(self.rows)) - set(standing.deadly))
        self.letters = set(standing.deadly)


def deaths_of(stream: Stream) -> int:
    """How many writers die before the position moves."""
    deaths = 0
    try:
        stream.meet()
    except Death:
        deaths = 1
    while stream.letters is None:
        try:
            stream.recover(stream.take_over())
        except Death:
            deaths += 1
            assert deaths < 100
    return deaths


@pytest.mark.parametrize("killer", [0, 1, 6])
def test_an_event_that_ends_its_writer_is_found_in_three_deaths(killer: int) -> None:
    stream = Stream(7, {killer})

    assert deaths_of(stream) == 3
    assert stream.letters == {killer}


@given(st.integers(1, 20), st.data())
def test_several_of_them_are_found_and_nobody_else(rows: int, data: st.DataObject) -> None:
    killers = data.draw(st.sets(st.integers(0, rows - 1)))
    stream = Stream(rows, killers)

    deaths = deaths_of(stream)

    assert stream.letters == killers
    assert deaths == (len(killers) + 2 if killers else 0)


def test_no_row_is_tried_again_once_it_is_known_to_be_harmless() -> None:
    stream = Stream(10, {3, 7})
    deaths_of(stream)

    assert stream.tried == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_stream_that_nobody_had_in_hand_is_not_suspicious() -> None:
    """The first takeover of all finds positions that no writer has ever moved."""
    assert not Standing(EntryId(0, 0), 1, None, ()).is_suspicious
    assert Standing(EntryId(0, 0), 2, None, ()).is_suspicious


def test_a_writer_that_was_killed_by_others_costs_its_successor_no_tries() -> None:
    """The entry goes through as a whole, and nearly always that is all."""
    assert not Standing(EntryId(1, 1), 2, None, ()).rows_to_try(1000)


def test_a_death_while_the_rest_goes_through_blames_nobody() -> None:
    """All rows were tried, and what was announced last is the entry, not its last row."""
    stream = Stream(3, {1})
    deaths_of(stream)
    assert stream.trying == WHOLE_ENTRY
