"""Which days of raw events are to be dropped?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

#: What the table of a day is called while it is on its way out.
LEAVING = "_leaving"
_NAME = re.compile(rf"events_(\d{{4}})(\d\d)(\d\d)({LEAVING})?")


class DayTable(NamedTuple):
    """The table of one day."""

    day: date
    name: str
    #: It was begun to drop it, and not ended.
    is_leaving: bool


def day_table(name: str) -> DayTable | None:
    """What a table's name says; None where it is not that of a day."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        day = date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None
    return DayTable(day, name, found[4] is not None)


def due(names: Iterable[str], today: date, keep_days: int) -> list[DayTable]:
    """
    The tables to drop: those on their way out, and those of days older than are kept.

    Args:
        names: Of tables.
        today: In UTC.
        keep_days: So many whole days before today are kept.
    """
    oldest = today - timedelta(days=keep_days)
    found = [table for name in names if (table := day_table(name)) is not None]
    # One that leaves comes first: its successor of the same day cannot go before it.
    return sorted(
        (table for table in found if table.is_leaving or table.day < oldest),
        key=lambda table: (table.day, not table.is_leaving),
    )
