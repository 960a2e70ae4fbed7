"""Cursors: what was given out comes back as it was, and nothing else is taken."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.stores.cursor import Cursor, cut_page

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.uuids())
def test_a_cursor_comes_back_to_the_microsecond(at: datetime, key: UUID) -> None:
    """A cursor that lost one would show an item twice, or never."""
    assert Cursor.parse(str(Cursor(at, key))) == Cursor(at, key)


@given(st.binary(min_size=25, max_size=40) | st.binary(max_size=23))
def test_what_is_no_cursor_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(base64.urlsafe_b64encode(raw).decode().rstrip("="))


@given(st.text(max_size=40))
def test_no_text_does_anything_else(text: str) -> None:
    with suppress(ValueError):
        Cursor.parse(text)


@pytest.mark.parametrize(("found", "shown"), [(0, 0), (1, 1), (3, 3), (4, 3)])
def test_a_page_ends_where_the_next_begins(found: int, shown: int) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    rows = [{"at": now, "id": UUID(int=n)} for n in range(found)]

    page, following = cut_page(rows, 3, "at", "id")

    assert page == rows[:shown]
    assert following == (Cursor(now, UUID(int=2)) if found > 3 else None)
