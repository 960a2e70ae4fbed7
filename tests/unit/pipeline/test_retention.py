"""Which days are dropped, and which never."""

from __future__ import annotations

from datetime import date

import pytest

from ray_tracking.pipeline.retention import DayTable, day_table, due

TODAY = date(2026, 11, 25)


def test_whole_days_before_today_are_kept() -> None:
    names = ["events_20261125", "events_20261124", "events_20261123", "events_20261126"]

    assert due(names, TODAY, 1) == [DayTable(date(2026, 11, 23), "events_20261123", False)]
    assert due(names, TODAY, 2) == []


def test_what_was_begun_is_ended_first() -> None:
    names = ["events_20261124_leaving", "events_20260101", "events_20260101_leaving"]

    assert [table.name for table in due(names, TODAY, 90)] == [
        "events_20260101_leaving",
        "events_20260101",
        "events_20261124_leaving",
    ]


@pytest.mark.parametrize(
    "name", ["events", "events_", "events_2026112", "events_20261399", "events_20200101_x", "logs"]
)
def test_other_tables_are_left_alone(name: str) -> None:
    assert day_table(name) is None
    assert due([name], TODAY, 1) == []
