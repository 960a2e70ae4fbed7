from __future__ import annotations

from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.traffic import BUCKETS_MS, Traffic


def test_each_verdict_is_counted_where_it_belongs() -> None:
    traffic = Traffic()
    traffic.note([Outcome(verdict) for verdict in Verdict], 10.0, 0, invalid=3)
    traffic.note_one(Verdict.DUPLICATE, 10.0, 0)
    assert (traffic.acknowledged, traffic.duplicates, traffic.limited) == (2, 2, 1)
    assert (traffic.overloaded, traffic.invalid) == (3, 3)


def test_an_answer_is_in_the_bucket_whose_end_it_does_not_pass() -> None:
    traffic = Traffic()
    for elapsed_ms in (0.1, BUCKETS_MS[0], BUCKETS_MS[0] + 0.1, 10**6):
        traffic.note_one(Verdict.ACCEPTED, elapsed_ms, 0)
    assert (traffic.answers[0], traffic.answers[1], traffic.answers[-1]) == (2, 1, 1)


def test_the_last_minute_is_the_last_minute() -> None:
    traffic = Traffic()
    traffic.note_one(Verdict.ACCEPTED, 100.0, 0)
    traffic.note_one(Verdict.ACCEPTED, 20.0, 50_000)
    assert traffic.last_minute(55_000) == (2, 120.0)
    assert traffic.last_minute(70_000) == (1, 20.0)
    assert traffic.last_minute(200_000) == (0, 0.0)
