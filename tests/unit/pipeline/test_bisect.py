"""Which rows of a flush are at fault: all of them, no others, in few tries."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.bisect import failing


def search(rows: int, fails: Callable[[range], bool]) -> tuple[list[int], list[range]]:
    """What is found, and what was tried for it."""
    tried: list[range] = []
    finder = failing(rows)
    answer: bool | None = None
    while True:
        try:
            span = next(finder) if answer is None else finder.send(answer)
        except StopIteration as end:
            return end.value, tried
        tried.append(span)
        answer = fails(span)


@st.composite
def poisoned(draw: st.DrawFn) -> tuple[int, set[int]]:
    """So many rows, and which of them are poison."""
    rows = draw(st.integers(1, 300))
    return rows, draw(st.sets(st.integers(0, rows - 1), min_size=1))


@given(poisoned())
def test_every_row_that_fails_alone_is_found_and_no_other(case: tuple[int, set[int]]) -> None:
    rows, poison = case

    found, tried = search(rows, lambda span: not poison.isdisjoint(span))

    assert found == sorted(poison)
    assert all(span for span in tried)
    assert len(tried) < 2 * rows


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 31, 32, 33, 1000])
def test_one_row_is_found_in_few_tries(rows: int) -> None:
    for poison in range(rows):
        found, tried = search(rows, lambda span, poison=poison: poison in span)

        assert found == [poison]
        assert len(tried) <= 2 * log2(rows)


@given(st.integers(2, 300), st.data())
def test_nobody_is_at_fault_where_it_takes_two_to_fail(rows: int, data: st.DataObject) -> None:
    """Two rows with one key: each goes through alone, and neither may be set aside."""
    first, second = data.draw(
        st.lists(st.integers(0, rows - 1), min_size=2, max_size=2, unique=True)
    )

    found, _ = search(rows, lambda span: first in span and second in span)

    assert found == []


@given(st.integers(2, 300))
def test_nobody_is_at_fault_where_it_has_passed(rows: int) -> None:
    found, tried = search(rows, lambda span: False)

    assert found == []
    assert len(tried) <= log2(rows) + 2


def test_what_was_found_in_a_flush_was_tried_alone() -> None:
    """Not only concluded from its neighbour, which may have been the fault of another."""
    for poison in range(8):
        _, tried = search(8, lambda span, poison=poison: poison in span)

        assert range(poison, poison + 1) in tried
