"""What all lists have in common: which page, and what it looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from ray_tracking.stores.cursor import Cursor, decode_keys

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


def read_page(given: Mapping[str, str], wrong: list[tuple[str, str]]) -> tuple[int, Cursor | None]:
    """
    How many items are asked for, and after which.

    Args:
        given: The query parameters.
        wrong: Gets an entry for each that is.
    """
    limit, after = read_limit(given, wrong), None
    if (text := given.get("after")) is not None:
        try:
            after = Cursor.parse(text)
        except ValueError as error:
            wrong.append(("after", str(error)))
    return limit, after


def read_limit(
    given: Mapping[str, str], wrong: list[tuple[str, str]], default: int = DEFAULT_LIMIT
) -> int:
    """How many items are asked for; ``wrong`` gets an entry if that is no such number."""
    text = given.get("limit")
    if text is None:
        return default
    if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    wrong.append(("limit", f"must be a number from 1 to {MAX_LIMIT}"))
    return default


def read_keys(
    given: Mapping[str, str], wrong: list[tuple[str, str]], *kinds: type
) -> tuple[Any, ...] | None:
    """Where a list that is ordered by keys goes on: the keys, each of its type."""
    if (text := given.get("after")) is None:
        return None
    try:
        return decode_keys(text, *kinds)
    except ValueError as error:
        wrong.append(("after", str(error)))
        return None


def page(items: Sequence[Any], following: Cursor | str | None) -> Response:
    """A page, and where the next begins."""
    return JSONResponse({"items": items, "next": str(following) if following else None})


def database_away() -> Response:
    """The 503 of whoever has to ask Postgres."""
    body = {"success": False, "error": "Postgres does not answer; events are still taken"}
    return JSONResponse(body, 503, {"Retry-After": "2"})
