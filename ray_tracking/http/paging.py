"""What all lists have in common: which page, and what it looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from ray_tracking.stores.cursor import Cursor

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


def read_page(given: Mapping[str, str], wrong: list[tuple[str, str]]) -> tuple[int, Cursor | None]:
    """
    How many items are asked for, and after which.

    Args:
        given: The query parameters.
        wrong: Gets an entry for each that is.
    """
    limit, after = DEFAULT_LIMIT, None
    if (text := given.get("limit")) is not None:
        if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MAX_LIMIT:
            limit = int(text)
        else:
            wrong.append(("limit", f"must be a number from 1 to {MAX_LIMIT}"))
    if (text := given.get("after")) is not None:
        try:
            after = Cursor.parse(text)
        except ValueError as error:
            wrong.append(("after", str(error)))
    return limit, after


def page(items: Sequence[Any], following: Cursor | None) -> Response:
    """A page, and where the next begins."""
    return JSONResponse({"items": items, "next": str(following) if following else None})


def database_away() -> Response:
    """The 503 of whoever has to ask Postgres."""
    body = {"success": False, "error": "Postgres does not answer; events are still taken"}
    return JSONResponse(body, 503, {"Retry-After": "2"})
