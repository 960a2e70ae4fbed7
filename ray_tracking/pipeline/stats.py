"""ProcessingStats: the whole cluster in figures, from what the supervisor has gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_tracking.pipeline.health import readiness
from ray_tracking.pipeline.overview import Overview, ReplicaReport, worst_breaker


def processing_stats(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """
    Make the stats.

    Args:
        snapshot: What the supervisor says (:meth:`Supervisor.health`).
    """
    whole: Overview = snapshot["overview"]
    replicas: Sequence[ReplicaReport] = snapshot["replicas"]
    shards = [status for status in snapshot["shards"] if status is not None]
    writers = [status for status in snapshot["writers"] if status is not None]
    broadcaster = snapshot["broadcaster"]
    requests = sum(report.requests for report in replicas)
    request_ms = sum(report.request_ms for report in replicas)
    memory = {status["name"]: status["rss_bytes"] for status in [*shards, *writers]}
    if broadcaster is not None:
        memory[broadcaster["name"]] = broadcaster["rss_bytes"]
    memory |= {f"ingress-{report.replica}": report.rss_bytes for report in replicas}
    memory["supervisor"] = snapshot["rss_bytes"]
    gone: Mapping[str, int] = snapshot["gone"]

    def total(name: str) -> int:
        counted: int = sum(getattr(report, name) for report in replicas)
        return gone.get(name, 0) + counted

    return {
        "eventsProcessed": whole.accepted,
        "averageProcessingTime": round(request_ms / requests, 3) if requests else 0.0,
        "currentThroughput": round(snapshot["per_s"], 1),
        "peakThroughput": round(snapshot["peak_per_s"], 1),
        "batchesProcessed": sum(writer["batches"] for writer in writers),
        "duplicatesDetected": total("duplicates"),
        "dedupEvictedEarly": sum(shard["dedup_evicted_early"] for shard in shards),
        "validationErrors": total("invalid"),
        "processingErrors": whole.dead,
        "rateLimited": total("limited"),
        "backpressureEvents": total("overloaded"),
        "backpressureLevel": snapshot["level"].value,
        "processingMode": snapshot["mode"].value,
        "memoryUsage": {"rss": sum(memory.values()), "perActor": memory},
        "queueDepth": sum(writer["queued_events"] for writer in writers),
        "bufferSize": whole.buffered,
        "logLag": max(0, whole.in_log),
        "spooled": whole.spooled,
        "parked": whole.parked,
        "deadLetters": whole.dead,
        "trackingUnconfirmed": whole.unconfirmed,
        "trackingLost": whole.lost,
        "initialized": True,
        "running": readiness(snapshot["shards"]) is None,
        "uptime": round(snapshot["uptime_s"], 1),
        "liveConnections": sum(report.connections for report in replicas),
        "redisStatus": {
            "main": _connected(snapshot["redis_up"]),
            "subscriber": _connected(broadcaster is not None and broadcaster["reading"]),
            "stream": _connected(
                bool(shards) and all(shard["breaker"]["state"] == "closed" for shard in shards)
            ),
        },
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


def _connected(is_so: bool) -> str:
    return "connected" if is_so else "disconnected"
