"""What a recount is compared with, and what stands in for rows that are gone."""

from __future__ import annotations

from ray_tracking.pipeline.recount import Figure, check, together


def test_a_figure_that_is_missing_on_one_side_is_zero_there() -> None:
    found = check("c", {"opens": 3, "sent": 1}, {"opens": 3, "clicks": 2, "day x EMAIL_OPEN": 1})

    assert found.differences == [
        Figure("clicks", 0, 2),
        Figure("sent", 1, 0),
        Figure("day x EMAIL_OPEN", 0, 1),
    ]
    assert found.answer()["differences"] == 3
    assert found.answer()["equal"] is False


def test_what_is_equal_is_shown_where_it_is_about_the_whole() -> None:
    found = check("c", {"opens": 3, "day x EMAIL_OPEN": 3}, {"opens": 3, "day x EMAIL_OPEN": 3})

    assert found.answer() == {
        "campaignId": "c",
        "equal": True,
        "compared": 2,
        "differences": 0,
        "figures": [{"figure": "opens", "rollup": 3, "recount": 3}],
    }


def test_names_and_times_are_those_of_the_api() -> None:
    begun = 1_795_168_800_000_000
    rollup = {"unique_opens": 1, "hard": 2, "first_event_at": begun, "unique_clicks a_b c_d": 3}
    answer = check("c", rollup, {}).answer()

    assert {one["figure"]: (one["rollup"], one["recount"]) for one in answer["figures"]} == {
        "uniqueOpens": (1, 0),
        "bounces.hard": (2, 0),
        "firstEventAt": ("2026-11-20T10:00:00.000Z", None),
        "uniqueClicks a_b c_d": (3, 0),
    }


def test_sealed_sums_are_added_and_leads_are_not_counted_twice() -> None:
    counted = {"opens": 2, "unique_opens": 5, "first_event_at": 100, "last_event_at": 200}
    sealed = {"opens": 3, "unique_opens": 4, "clicks": 1, "first_event_at": 50, "last_event_at": 60}

    assert together(counted, sealed) == {
        "opens": 5,
        "unique_opens": 5,
        "clicks": 1,
        "first_event_at": 50,
        "last_event_at": 200,
    }
