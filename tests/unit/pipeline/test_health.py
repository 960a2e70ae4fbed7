"""Health follows progress, and the whole is as well as its worst part."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from ray_tracking.pipeline.health import STALLED_AFTER_MS, HealthJudge, overall_health, readiness
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.overview import Overview, ReplicaReport

NOW_S = 1_795_461_600.25
MB = 1024 * 1024
CLOSED = {"state": "closed", "failures": 0, "openedAt": None}
OPEN = {"state": "open", "failures": 4, "openedAt": 1_795_461_600_000}
SHARD: dict[str, Any] = {
    "name": "shard-0",
    "rss_bytes": 100 * MB,
    "started": True,
    "breaker": CLOSED,
    "log_full": False,
    "spools_abandoned": [],
    "blocked": [],
    "dedup_effective_ms": 60_000,
    "dedup_window_ms": 60_000,
}
WRITER: dict[str, Any] = {
    "name": "writer-0",
    "rss_bytes": 200 * MB,
    "queued_events": 0,
    "stalled_ms": 0,
    "stalled_lane": None,
    "trouble": None,
    "breaker": CLOSED,
}
FIGURES = Overview(
    accepted=10, rows=4, dead=1, discarded=0, missing=0, in_log=3, parked=2, spooled=0,
    buffered=5,
)  # fmt: skip
REPORT = ReplicaReport(
    replica="r",
    buffered=0,
    spooled=0,
    spool_bytes=0,
    spool_corrupt=0,
    unconfirmed=0,
    lost=0,
    connections=3,
    requests=4,
    request_ms=10.0,
    rss_bytes=100 * MB,
)
NO_ROOM = structs.replace(REPORT, spool_trouble="no space left")
STALLED = WRITER | {
    "queued_events": 7, "stalled_ms": STALLED_AFTER_MS + 1, "stalled_lane": "normal",
}  # fmt: skip
SLOW = structs.replace(REPORT, replica="slow", requests=2, request_ms=500.0)
BROADCASTER = {"name": "broadcaster", "rss_bytes": 100 * MB, "trouble": None, "reading": True}
AWAY = {"postgres_up": False, "postgres_up_ms": 0}
WELL: dict[str, Any] = {
    "redis_up": True,
    "postgres_up": True,
    "postgres_up_ms": 60_000,
    "warnings": [],
    "shards": [SHARD, SHARD],
    "writers": [WRITER, WRITER],
    "broadcaster": BROADCASTER,
    "rss_bytes": 50 * MB,
    "memory_total_bytes": 8192 * MB,
    "stalled_ms": {"high": 0, "normal": 0},
    "replicas": [REPORT],
    "overview": FIGURES,
    "level": Level.NORMAL,
    "spool": True,
}


def test_all_is_well() -> None:
    assert overall_health(WELL, now_s=NOW_S) == {
        "timestamp": "2026-11-23T19:20:00.250Z",
        "overall": "healthy",
        "components": {
            "redis": {
                "status": "healthy",
                "connections": dict.fromkeys(("main", "subscriber", "stream"), "connected"),
            },
            "database": {"status": "healthy"},
            "shards": {"status": "healthy"},
            "writers": {"status": "healthy", "queued": 0},
            "websocket": {"status": "healthy", "connectedClients": 3},
            "spool": {"status": "healthy", "events": 0},
            "queues": {
                "status": "healthy",
                "level": "normal",
                "queues": {"logLag": 3, "parked": 2, "spooled": 0, "buffered": 5},
            },
            "memory": {"status": "healthy", "heapUsed": 550.0, "heapTotal": 8192.0},
            "performance": {"status": "healthy", "averageProcessingTime": 2.5},
            "circuitBreakers": {"status": "healthy", "redis": CLOSED, "database": CLOSED},
        },
    }


@pytest.mark.parametrize(
    ("change", "component", "status", "word"),
    [
        ({"redis_up": False, "spool": False}, "redis", "unhealthy", "nothing is accepted"),
        ({"redis_up": False}, "redis", "degraded", "events are spooled"),
        ({"redis_up": False, "replicas": []}, "redis", "degraded", "events are spooled"),
        ({"replicas": [REPORT, NO_ROOM]}, "spool", "degraded", "no space left"),
        (
            {"replicas": [structs.replace(REPORT, spool_corrupt=2)]},
            "spool",
            "degraded",
            "2 damaged records",
        ),
        (
            {"overview": structs.replace(FIGURES, spooled=3)},
            "spool",
            "degraded",
            "wait on disk",
        ),
        (
            {"shards": [SHARD | {"spools_abandoned": ["ab"]}]},
            "spool",
            "degraded",
            "not drained: ab",
        ),
        ({"level": Level.CRITICAL}, "queues", "degraded", "critical"),
        ({"shards": [SHARD | {"log_full": True}]}, "queues", "degraded", "max_backlog_bytes"),
        ({"shards": [SHARD | {"breaker": OPEN}]}, "circuitBreakers", "degraded", "redis"),
        ({"writers": [WRITER | {"breaker": OPEN}]}, "circuitBreakers", "degraded", "database"),
        ({"warnings": ["no AOF", "eviction"]}, "redis", "degraded", "no AOF; eviction"),
        (
            AWAY,
            "database",
            "degraded",
            "events wait in the log",
        ),
        ({"shards": [SHARD, None]}, "shards", "degraded", "shard 1 does not answer"),
        (
            {"shards": [SHARD, None], "spool": False},
            "shards",
            "unhealthy",
            "shard 1 does not answer",
        ),
        (
            {"shards": [SHARD | {"started": False}], "spool": False},
            "shards",
            "unhealthy",
            "shard 0 cannot reach the event log",
        ),
        (
            {"shards": [SHARD | {"blocked": [7]}, SHARD | {"blocked": [2]}]},
            "shards",
            "unhealthy",
            "a gap in the log of partition 2, 7",
        ),
        ({"shards": [SHARD | {"dedup_effective_ms": 9_000}]}, "shards", "degraded", "forgotten"),
        ({"writers": [WRITER, None]}, "writers", "degraded", "a writer does not answer"),
        ({"broadcaster": None}, "websocket", "degraded", "the broadcaster does not answer"),
        ({"broadcaster": BROADCASTER | {"trouble": "no log"}}, "websocket", "degraded", "no log"),
        ({"replicas": [SLOW]}, "performance", "degraded", "250 ms"),
        (
            {"shards": [SHARD, SHARD | {"name": "shard-1", "rss_bytes": 2048 * MB}]},
            "memory",
            "degraded",
            "most of it in shard-1",
        ),
        (
            {"stalled_ms": {"high": 0, "normal": STALLED_AFTER_MS + 1}},
            "writers",
            "unhealthy",
            "nothing of the lane normal became rows for 10 s",
        ),
        ({"writers": [WRITER | {"trouble": "slow"}]}, "writers", "degraded", "slow"),
        ({"writers": [STALLED]}, "writers", "unhealthy", "writer-0 makes no progress"),
        (
            {"writers": [STALLED | {"trouble": "disk full"}]},
            "writers",
            "unhealthy",
            "disk full",
        ),
    ],
)
def test_the_whole_is_as_well_as_its_worst_part(
    change: dict[str, Any], component: str, status: str, word: str
) -> None:
    health = overall_health(WELL | change, now_s=NOW_S)

    assert health["overall"] == status
    assert health["components"][component]["status"] == status
    assert word in health["components"][component]["error"]
    assert health["components"][component]["action"]
    others = {name: part for name, part in health["components"].items() if name != component}
    assert {part["status"] for part in others.values()} == {"healthy"}


@pytest.mark.parametrize(
    ("change", "component", "parts"),
    [
        ({"shards": [SHARD, None]}, "shards", ["shard-1"]),
        ({"writers": [None, WRITER]}, "writers", ["writer-0"]),
        ({"writers": [WRITER, STALLED | {"name": "writer-1"}]}, "writers", ["writer-1"]),
        ({"shards": [SHARD | {"breaker": OPEN}]}, "circuitBreakers", ["shard-0"]),
        ({"broadcaster": None}, "websocket", ["broadcaster"]),
        ({"replicas": [REPORT, SLOW]}, "performance", None),
        ({"replicas": [SLOW]}, "performance", ["ingress-slow"]),
        ({"replicas": [NO_ROOM]}, "spool", ["ingress-r"]),
        (AWAY, "database", []),
    ],
)
def test_a_component_names_the_actors_that_it_is_about(
    change: dict[str, Any], component: str, parts: list[str] | None
) -> None:
    components = overall_health(WELL | change, now_s=NOW_S)["components"]

    assert components[component].get("parts") == parts


def test_a_component_says_since_when_it_is_as_it_is() -> None:
    judge = HealthJudge()

    def since(now_s: float, **change: Any) -> str:
        components = judge.judge(WELL | change, now_s=now_s)["components"]
        assert components["redis"]["since"] == "2026-11-23T19:20:00.250Z"
        return str(components["database"]["since"])

    assert since(NOW_S) == since(NOW_S + 5) == "2026-11-23T19:20:00.250Z"
    assert since(NOW_S + 10, postgres_up=False) == "2026-11-23T19:20:10.250Z"
    assert since(NOW_S + 20, postgres_up=False) == "2026-11-23T19:20:10.250Z"
    assert since(NOW_S + 30) == "2026-11-23T19:20:30.250Z"


def test_postgres_says_why_it_does_not_answer() -> None:
    away = WELL | {
        "postgres_up": False,
        "postgres_up_ms": 0,
        "postgres_trouble": "connection refused",
    }

    error = overall_health(away, now_s=NOW_S)["components"]["database"]["error"]
    assert error.endswith("the log: connection refused")


def test_a_backlog_is_no_stall_while_postgres_is_away_or_progress_is_made() -> None:
    """Ingest goes on into the log, so the service is degraded, and a 503 would be wrong."""
    away = overall_health(WELL | {"writers": [STALLED], **AWAY}, now_s=NOW_S)
    busy = STALLED | {"stalled_ms": STALLED_AFTER_MS}

    assert away["overall"] == "degraded"
    assert away["components"]["writers"]["queued"] == 7
    assert overall_health(WELL | {"writers": [busy, busy]}, now_s=NOW_S)["overall"] == "healthy"


def test_a_writer_has_its_time_when_postgres_is_back() -> None:
    back = WELL | {"writers": [STALLED], "stalled_ms": {"high": 0, "normal": 90_000}}

    early = overall_health(back | {"postgres_up_ms": STALLED_AFTER_MS}, now_s=NOW_S)
    late = overall_health(back | {"postgres_up_ms": STALLED_AFTER_MS + 1}, now_s=NOW_S)
    assert (early["overall"], late["overall"]) == ("healthy", "unhealthy")


def test_two_troubles_are_as_bad_as_the_worse() -> None:
    wrong = {"warnings": ["no AOF"], "shards": [None], "spool": False}
    both = overall_health(WELL | wrong, now_s=NOW_S)

    assert both["overall"] == "unhealthy"
    assert both["components"]["redis"]["status"] == "degraded"


def test_a_log_out_of_reach_with_no_room_in_any_spool_is_the_end_of_taking() -> None:
    health = overall_health(WELL | {"redis_up": False, "replicas": [NO_ROOM]}, now_s=NOW_S)

    assert health["components"]["redis"]["status"] == "unhealthy"


def test_a_supervisor_that_does_not_answer_is_a_reason_to_look() -> None:
    health = overall_health(None, now_s=NOW_S)

    assert health["overall"] == "degraded"
    assert health["components"]["supervisor"]["error"] == "it does not answer"


@pytest.mark.parametrize(
    ("shards", "reason"),
    [
        ([], None),
        ([SHARD, SHARD], None),
        ([None, SHARD], "shard 0 does not answer"),
        ([SHARD, SHARD | {"started": False}], "shard 1 cannot reach the event log"),
    ],
)
def test_readiness_hangs_on_shards_alone(shards: list[Any], reason: str | None) -> None:
    """With Postgres away, events can be taken."""
    assert readiness(shards) == reason
