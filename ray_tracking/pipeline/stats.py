"""ProcessingStats: the whole cluster in figures, from what the supervisor has gathered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_tracking.pipeline.health import readiness
from ray_tracking.pipeline.overview import (
    Overview,
    mean_ms,
    memory_by_part,
    redis_status,
    worst_breaker,
)


def processing_stats(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """
    Make the stats.

    Args:
        snapshot: What the supervisor says (:meth:`Supervisor.health`).
    """
    whole: Overview = snapshot["overview"]
    counted: Mapping[str, int] = snapshot["counted"]
    replicas = snapshot["replicas"]
    shards = [status for status in snapshot["shards"] if status is not None]
    writers = [status for status in snapshot["writers"] if status is not None]
    memory = memory_by_part(snapshot)
    letters = snapshot["dead_letters"]
    return {
        "eventsProcessed": whole.accepted,
        "averageProcessingTime": mean_ms(replicas),
        "currentThroughput": round(snapshot["per_s"], 1),
        "peakThroughput": round(snapshot["peak_per_s"], 1),
        "batchesProcessed": counted["batches"],
        "duplicatesDetected": counted["duplicates"],
        "dedupEvictedEarly": counted["dedup_evicted_early"],
        "validationErrors": counted["invalid"],
        "processingErrors": whole.dead,
        "rateLimited": counted["limited"],
        "backpressureEvents": counted["overloaded"],
        "backpressureLevel": snapshot["level"].value,
        "processingMode": snapshot["mode"].value,
        "memoryUsage": {"rss": sum(memory.values()), "perActor": memory},
        "queueDepth": sum(writer["queued_events"] for writer in writers),
        "bufferSize": whole.buffered,
        "logLag": max(0, whole.in_log),
        "spooled": whole.spooled,
        "parked": whole.parked,
        # Those that wait for somebody; before Postgres was asked, all that ever were.
        "deadLetters": whole.dead if letters is None else letters,
        "trackingUnconfirmed": counted["unconfirmed"],
        "trackingLost": counted["lost"],
        "initialized": True,
        "running": readiness(snapshot["shards"]) is None,
        "uptime": round(snapshot["uptime_s"], 1),
        "liveConnections": sum(report.connections for report in replicas),
        "redisStatus": redis_status(snapshot),
        "circuitBreakers": {
            "database": worst_breaker(writers),
            "redis": worst_breaker(shards),
        },
    }


def dashboard_stats(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The same under the names that older dashboards ask for as well."""
    return {
        **stats,
        "totalProcessed": stats["eventsProcessed"],
        "totalBatches": stats["batchesProcessed"],
        "totalErrors": stats["processingErrors"] + stats["validationErrors"],
    }
