"""Cursors: what was given out comes back as it was, and nothing else is taken."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.stores.cursor import Cursor, cut_page, decode_keys, encode_keys

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


@pytest.mark.parametrize("keys", [("a/b ü 'x'",), (7, "00ff"), (0, "")])
def test_keys_come_back_as_they_were(keys: tuple[str | int, ...]) -> None:
    assert decode_keys(encode_keys(*keys), *[type(key) for key in keys]) == keys


@pytest.mark.parametrize(
    "text", ["", "!", "x", encode_keys("7"), encode_keys(7, "x"), encode_keys("a\0"), "bnVsbA"]
)
def test_keys_of_another_list_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        decode_keys(text, int)
    with pytest.raises(ValueError, match="not a cursor"):
        decode_keys(encode_keys("a\0"), str)
