from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.history import History
from tests.chaos.watchers import Memory


def told(event: str, opens: int, **more: Any) -> dict[str, Any]:
    counters = {
        "opens": opens, "uniqueOpens": 0, "clicks": 0, "uniqueClicks": 0, "replies": 0,
        "uniqueReplies": 0, "bounces": {"hard": 0},
    }  # fmt: skip
    data: dict[str, Any] = {"campaignId": "c", **more}
    if event == "subscribed":
        data["snapshot"] = counters
    elif event == "progress_batch":
        data = {"events": [{"campaignId": "c", "counters": counters}]}
    else:
        data["counters"] = counters
    return {"event": event, "data": data, "cursor": "1-1"}


@pytest.mark.parametrize("event", ["campaign_progress", "campaign_progress_detailed"])
@pytest.mark.parametrize(
    ("second", "more", "misled"), [(6, {}, 0), (4, {}, 1), (4, {"correction": True}, 0)]
)
def test_figures_may_go_back_only_with_a_word(
    event: str, second: int, more: dict[str, Any], misled: int
) -> None:
    history = History()
    memory = Memory("w", history)
    memory.hear(told(event, 5))
    memory.hear(told(event, second, **more))
    assert len(history.misled) == misled
    assert memory.shown["c"]["opens"] == second


def test_a_batch_is_no_excuse() -> None:
    history = History()
    memory = Memory("w", history)
    memory.hear(told("campaign_progress", 5))
    memory.hear(told("progress_batch", 4))
    assert len(history.misled) == 1


@pytest.mark.parametrize(
    ("lost", "recovered", "misled"), [(True, False, 0), (True, True, 1), (False, False, 1)]
)
def test_figures_begin_anew_only_after_a_connection_was_lost_and_not_recovered(
    lost: bool, recovered: bool, misled: int
) -> None:
    history = History()
    memory = Memory("w", history)
    memory.hear(told("subscribed", 5, recovered=False))
    if lost:
        memory.lost()
    memory.hear(told("subscribed", 4, recovered=recovered))
    assert len(history.misled) == misled
