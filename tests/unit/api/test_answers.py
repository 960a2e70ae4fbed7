"""Answers go by either name, and through pickle: a Ray task may return them."""

from __future__ import annotations

import pickle

import pytest

from ray_tracking.api.answers import BatchResult, ProcessingResult, ProcessingStats


def test_an_answer_goes_by_either_name() -> None:
    result = ProcessingResult(success=True, event_id="e1", processing_time=1.5)
    assert result.event_id == result["event_id"] == result["eventId"] == "e1"
    assert result.to_dict()["processingTime"] == 1.5
    assert (result.get("eventId"), result.get("nothing", 3)) == ("e1", 3)
    assert dict(result)["processingTime"] == 1.5
    with pytest.raises(KeyError):
        result["nothing"]


@pytest.mark.parametrize(
    "answer",
    [ProcessingResult(success=False, error="no"), BatchResult(success=True), ProcessingStats()],
)
def test_an_answer_goes_through_pickle(answer: object) -> None:
    assert pickle.loads(pickle.dumps(answer)) == answer
