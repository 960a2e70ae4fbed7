"""What the supervisor sees, made by the real picture from made-up words of the parts."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.overview import ReplicaReport
from ray_tracking.pipeline.picture import Picture
from ray_tracking.pipeline.traffic import BUCKETS_MS

NOW_S = 1_795_461_600.25
MB = 1024 * 1024
CLOSED = {"state": "closed", "failures": 0, "openedAt": None}
OPEN = {"state": "open", "failures": 4, "openedAt": 1_795_461_600_000}
SHARD: dict[str, Any] = {
    "name": "shard-0",
    "started": True,
    "rss_bytes": 100 * MB,
    "totals": {"high": 10, "normal": 100, "parked": 5},
    "buffered": 4,
    "breaker": CLOSED,
    "log_bytes": 4096,
    "log_full": False,
    "spools_abandoned": [],
    "blocked": [],
    "dedup_ids": 77,
    "dedup_evicted_early": 0,
    "dedup_effective_ms": 60_000,
    "dedup_window_ms": 60_000,
}
WRITER: dict[str, Any] = {
    "name": "writer-0",
    "started": True,
    "rss_bytes": 200 * MB,
    "stored": {"high": 10, "normal": 86, "parked": 0},
    "books": {"rows": 90, "dead": 1, "discarded": 2, "missing": 3},
    "batches": 12,
    "queued_events": 0,
    "oldest_ms": 1500,
    "stalled_ms": 0,
    "stalled_lane": None,
    "batch_events": 640,
    "linger_ms": 50,
    "trouble": None,
    "breaker": CLOSED,
    "rollups": {"behind": 21},
}
REPORT = ReplicaReport(
    replica="a", buffered=3, spooled=7, spool_bytes=700, spool_corrupt=0, unconfirmed=11, lost=12,
    linger_s=0.004, acknowledged=1, duplicates=13, limited=14, overloaded=15, invalid=16,
    answers=[2] + [0] * len(BUCKETS_MS), answer_ms=10, requests=4, request_ms=10.0, connections=3,
    rss_bytes=100 * MB,
)  # fmt: skip
SAID: dict[str, Any] = {
    "postgres_up": True,
    "postgres_trouble": None,
    "dead_letters": 6,
    "redis_up": True,
    "warnings": [],
    "broadcaster": {
        "name": "broadcaster", "rss_bytes": 100 * MB, "trouble": None, "reading": True,
    },
    "level": Level.NORMAL,
    "mode": Mode.HYBRID,
    "per_s": 12.34,
    "peak_per_s": 56.78,
    "spool": True,
    "max_backlog_bytes": 2**32,
    "rss_bytes": 50 * MB,
    "memory_total_bytes": 8192 * MB,
}  # fmt: skip


class Scene:
    """A cluster of one shard, one writer and one replica, whose words can be changed."""

    def __init__(self) -> None:
        self.picture = Picture(0.0)
        self.now_s = 0.0

    def snapshot(
        self,
        shard: dict[str, Any] | None = None,
        writer: dict[str, Any] | None = None,
        report: dict[str, Any] | None = None,
        silent: tuple[str, ...] = (),
        **said: Any,
    ) -> dict[str, Any]:
        """After another second, with what is changed; those named in ``silent`` say nothing."""
        self.now_s += 1.0
        if "replica" not in silent:
            self.picture.report(structs.replace(REPORT, **(report or {})), self.now_s)
        shards = [None if "shard" in silent else SHARD | (shard or {})]
        writers = [None if "writer" in silent else WRITER | (writer or {})]
        return self.picture.snapshot(
            shards, writers, SAID | said, now_s=self.now_s, unix_s=NOW_S + self.now_s
        )
