"""GET /metrics: what the supervisor said, as text that Prometheus reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ray_tracking.http.metrics import exposition
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from tests.support.snapshots import OPEN, Scene


def said(**changes: Any) -> dict[str, float]:
    return read(Scene().snapshot(**changes))


def read(snapshot: dict[str, Any]) -> dict[str, float]:
    families = text_string_to_metric_families(exposition(snapshot).decode())
    return {
        sample.name.removeprefix("ray_tracking_") + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_books_are_closed() -> None:
    found = said()
    names = ("rows", "dead", "discarded", "missing", "in_log", "parked", "spooled")
    total = {"rows", "dead", "discarded", "missing"}
    ends = [found[f"{name}_events" + ("_total" if name in total else "")] for name in names]
    assert ends == [90, 1, 2, 3, 14, 5, 7]
    assert found["accepted_events_total"] == sum(ends)


def test_what_follows_the_load_is_shown() -> None:
    found = said(level=Level.CRITICAL, mode=Mode.BATCH, shard={"breaker": OPEN})
    assert found["flush_events"] == 640
    assert found["flush_linger_seconds"] == 0.05
    assert found["linger_seconds"] == 0.004
    assert found["uncounted_events"] == 21
    assert found["buffered_events"] == 7
    assert found["backpressure_level"] == 2
    assert (found["processing_modeBATCH"], found["processing_modeHYBRID"]) == (1, 0)
    assert (found["circuit_breakerredis"], found["circuit_breakerdatabase"]) == (2, 0)
    assert (found["healthcircuitBreakers"], found["healthqueues"], found["healthredis"]) == (
        1,
        1,
        0,
    )


def test_what_waits_is_shown_with_its_age() -> None:
    found = said()
    assert (found["backlog_age_seconds"], found["stalled_secondsnormal"]) == (1.5, 0)
    scene = Scene()
    for _ in range(12):
        found = read(scene.snapshot())
    assert found["backlog_age_seconds"] == found["stalled_secondsnormal"] == 11
    assert found["stalled_secondshigh"] == 0
    assert found["healthwriters"] == 2


def test_a_silent_part_is_left_out_and_shown_as_down() -> None:
    found = said(silent=("writer", "replica"))
    assert (found["flush_events"], found["linger_seconds"]) == (0, 0)
    assert (found["part_upwriter-0"], found["part_upshard-0"]) == (0, 1)


def test_answers_are_a_histogram_that_adds_up() -> None:
    found = said(report={"answers": [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 4], "answer_ms": 2500})
    assert (found["answer_seconds_bucket0.002"], found["answer_seconds_bucket0.005"]) == (1, 3)
    assert found["answer_seconds_bucket+Inf"] == found["answer_seconds_count"] == 7
    assert found["answer_seconds_sum"] == 2.5


def test_a_count_does_not_go_back_with_the_process_that_counted() -> None:
    scene = Scene()
    assert read(scene.snapshot())["duplicate_events_total"] == 13
    found = read(scene.snapshot(report={"replica": "b", "duplicates": 2}, writer={"batches": 1}))
    assert found["duplicate_events_total"] == 15
    assert found["batches_total"] == 13


def test_what_was_acknowledged_and_is_in_no_book_is_missed() -> None:
    """The log has lost ten events that replicas have acknowledged in its name."""
    scene = Scene()
    replica = {"uptime_s": 0.5, "acknowledged": 0}
    assert read(scene.snapshot(report=replica))["unaccounted_events"] == 0
    grown = {"totals": {"high": 10, "normal": 140, "parked": 5}}
    taken = replica | {"acknowledged": 40}
    assert read(scene.snapshot(grown, report=taken))["unaccounted_events"] == 0
    lost = {"totals": {"high": 10, "normal": 130, "parked": 5}}
    assert read(scene.snapshot(lost, report=taken))["unaccounted_events"] == 10


def test_what_a_replica_acknowledged_before_our_time_is_not_missed() -> None:
    scene = Scene()
    before = {"uptime_s": 3600.0, "acknowledged": 5000}
    for _ in range(6):
        assert read(scene.snapshot(report=before))["unaccounted_events"] == 0
    assert read(scene.snapshot(report=before | {"acknowledged": 5004}))["unaccounted_events"] == 4


def test_no_label_grows_with_the_data() -> None:
    families = text_string_to_metric_families(exposition(Scene().snapshot()).decode())
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    assert labels <= {"version", "lane", "mode", "name", "part", "component", "le"}


def test_while_postgres_is_away_and_a_while_longer_nobody_stands_still() -> None:
    scene = Scene()
    for _ in range(30):
        assert read(scene.snapshot(postgres_up=False))["healthwriters"] == 0
    found = [read(scene.snapshot())["healthwriters"] for _ in range(15)]
    assert (found[0], found[9], found[-1]) == (0, 0, 2)
