"""GET /metrics: what the supervisor said, as text that Prometheus reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ray_tracking.http.metrics import exposition
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.overview import ReplicaReport, overview

_BOOKS = {"rows": 90, "dead": 1, "discarded": 2, "missing": 3}
_CLOSED = {"state": "closed", "failures": 0, "openedAt": None}


def said(**changes: Any) -> dict[str, float]:
    shard = {
        "name": "shard-0",
        "totals": {"high": 10, "normal": 100, "parked": 5},
        "buffered": 4,
        "breaker": {**_CLOSED, "state": "open"},
    }
    writer = {
        "name": "writer-0", "stored": {"high": 10, "normal": 86, "parked": 0}, "books": _BOOKS,
        "breaker": _CLOSED, "batch_events": 640, "rollups": {"behind": 21},
    }  # fmt: skip
    report = ReplicaReport(
        replica="a", buffered=3, spooled=7, spool_bytes=700, spool_corrupt=0, unconfirmed=11,
        lost=12, linger_s=0.004,
    )  # fmt: skip
    snapshot = {
        "overview": overview([shard], [writer], [report]),
        "level": Level.CRITICAL,
        "shards": [shard, None],
        "writers": [writer],
        "replicas": [report],
        **changes,
    }
    families = text_string_to_metric_families(exposition(snapshot).decode())
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_books_are_closed() -> None:
    found = said()
    names = ("rows", "dead", "discarded", "missing", "in_log", "parked", "spooled")
    total = {"rows", "dead", "discarded", "missing"}
    ends = [
        found[f"ray_tracking_{name}_events" + ("_total" if name in total else "")] for name in names
    ]
    assert ends == [90, 1, 2, 3, 14, 5, 7]
    assert found["ray_tracking_accepted_events_total"] == sum(ends)


def test_what_follows_the_load_is_shown() -> None:
    found = said()
    assert found["ray_tracking_flush_events"] == 640
    assert found["ray_tracking_linger_seconds"] == 0.004
    assert found["ray_tracking_uncounted_events"] == 21
    assert found["ray_tracking_buffered_events"] == 7
    assert found["ray_tracking_backpressure_level"] == 2
    assert found["ray_tracking_circuit_breakerredis"] == 2
    assert found["ray_tracking_circuit_breakerdatabase"] == 0


def test_a_silent_part_is_left_out() -> None:
    found = said(writers=[None], replicas=[])
    assert found["ray_tracking_flush_events"] == 0
    assert found["ray_tracking_linger_seconds"] == 0
