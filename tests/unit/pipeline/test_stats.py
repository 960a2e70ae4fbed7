"""ProcessingStats: each of its keys says what it should, and changes when that does."""

from __future__ import annotations

from typing import Any

import pytest

from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.stats import dashboard_stats, processing_stats
from tests.support.snapshots import MB, OPEN, SHARD, Scene

_TOTALS = SHARD["totals"]
_CONNECTED = dict.fromkeys(("main", "subscriber", "stream"), "connected")

#: Each key of the contract: what it is at first, what changes, and what it is then.
KEYS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "eventsProcessed": (122, {"shard": {"totals": _TOTALS | {"normal": 101}}}, 123),
    "averageProcessingTime": (2.5, {"report": {"request_ms": 80.0}}, 20.0),
    "currentThroughput": (12.3, {"per_s": 99.0}, 99.0),
    "peakThroughput": (56.8, {"peak_per_s": 99.0}, 99.0),
    "batchesProcessed": (12, {"writer": {"batches": 15}}, 15),
    "duplicatesDetected": (13, {"report": {"duplicates": 20}}, 20),
    "dedupEvictedEarly": (0, {"shard": {"dedup_evicted_early": 3}}, 3),
    "validationErrors": (16, {"report": {"invalid": 17}}, 17),
    "processingErrors": (
        1, {"writer": {"books": {"rows": 90, "dead": 2, "discarded": 2, "missing": 3}}}, 2,
    ),
    "rateLimited": (14, {"report": {"limited": 15}}, 15),
    "backpressureEvents": (15, {"report": {"overloaded": 99}}, 99),
    "backpressureLevel": ("normal", {"level": Level.EMERGENCY}, "emergency"),
    "processingMode": ("HYBRID", {"mode": Mode.REALTIME}, "REALTIME"),
    "memoryUsage": (
        {
            "rss": 550 * MB,
            "perActor": {
                "shard-0": 100 * MB, "writer-0": 200 * MB, "broadcaster": 100 * MB,
                "ingress-a": 100 * MB, "supervisor": 50 * MB,
            },
        },
        {"silent": ("shard", "writer"), "broadcaster": None, "rss_bytes": 60 * MB},
        {"rss": 160 * MB, "perActor": {"ingress-a": 100 * MB, "supervisor": 60 * MB}},
    ),
    "queueDepth": (0, {"writer": {"queued_events": 8}}, 8),
    "bufferSize": (7, {"shard": {"buffered": 0}}, 3),
    "logLag": (14, {"writer": {"stored": {"high": 10, "normal": 100, "parked": 0}}}, 0),
    "spooled": (7, {"report": {"spooled": 0}}, 0),
    "parked": (5, {"writer": {"stored": {"high": 10, "normal": 86, "parked": 5}}}, 0),
    "deadLetters": (6, {"dead_letters": 0}, 0),
    "trackingUnconfirmed": (11, {"report": {"unconfirmed": 12}}, 12),
    "trackingLost": (12, {"report": {"lost": 13}}, 13),
    "initialized": (True, {}, True),
    "running": (True, {"shard": {"started": False}}, False),
    "uptime": (1.0, {}, 2.0),
    "liveConnections": (3, {"report": {"connections": 0}}, 0),
    "redisStatus": (
        _CONNECTED, {"redis_up": False, "shard": {"breaker": OPEN}, "broadcaster": None},
        dict.fromkeys(_CONNECTED, "disconnected"),
    ),
    "circuitBreakers": (
        {name: {"state": "closed", "failures": 0, "openedAt": None}
         for name in ("database", "redis")},
        {"shard": {"breaker": OPEN}, "writer": {"breaker": OPEN}},
        {"database": OPEN, "redis": OPEN},
    ),
}  # fmt: skip


def test_there_is_every_key_and_no_other() -> None:
    assert processing_stats(Scene().snapshot()).keys() == KEYS.keys()


@pytest.mark.parametrize("key", KEYS)
def test_a_key_says_what_is_and_changes_with_it(key: str) -> None:
    before, change, after = KEYS[key]
    scene = Scene()

    assert processing_stats(scene.snapshot())[key] == before
    assert processing_stats(scene.snapshot(**change))[key] == after


def test_older_dashboards_find_their_names() -> None:
    stats = dashboard_stats(processing_stats(Scene().snapshot()))

    assert (stats["totalProcessed"], stats["totalBatches"], stats["totalErrors"]) == (122, 12, 17)


def test_before_postgres_was_asked_the_letters_are_those_that_were_ever_written() -> None:
    assert processing_stats(Scene().snapshot(dead_letters=None))["deadLetters"] == 1
