"""Where a page of a list ended, as a text that a client sends back for the next."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

# In whole numbers: a float of seconds would lose a microsecond now and then.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Cursor(NamedTuple):
    """The last item of a page: the next one begins after it. Stable while items arrive."""

    at: datetime
    id: UUID

    def __str__(self) -> str:
        micros = (self.at - _EPOCH) // _MICROSECOND
        raw = micros.to_bytes(8, "big") + self.id.bytes
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """
        Read a cursor.

        Raises:
            ValueError: If it is none of ours.
        """
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            micros = int.from_bytes(raw[:8], "big")
            return cls(_EPOCH + micros * _MICROSECOND, UUID(bytes=raw[8:]))
        except (binascii.Error, ValueError, OverflowError):
            raise ValueError("is not a cursor that this API gave out") from None


def cut_page(
    rows: Sequence[Any], limit: int, at: str, key: str
) -> tuple[Sequence[Any], Cursor | None]:
    """
    The rows of a page, and where the next begins if there is one.

    Args:
        rows: One more than the page holds, if there are so many.
        limit: How many it holds.
        at: The column of the time that the list is ordered by.
        key: The column of the id that decides between equal times.
    """
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Cursor(last[at], last[key])


def encode_keys(*keys: str | int) -> str:
    """Where a page ended of a list that is ordered by these keys."""
    raw = json.dumps(keys, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_keys(text: str, *kinds: type) -> tuple[Any, ...]:
    """
    Read what :func:`encode_keys` wrote.

    Args:
        text: The cursor.
        kinds: Of which type each key is.

    Raises:
        ValueError: If it is none of ours, or of another list.
    """
    try:
        keys = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        keys = None
    fits = isinstance(keys, list) and [type(key) for key in keys] == list(kinds)
    if fits and not any("\0" in key for key in keys if isinstance(key, str)):
        return tuple(keys)
    raise ValueError("is not a cursor that this API gave out")
