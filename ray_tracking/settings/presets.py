"""
Named starting points: what each preset sets otherwise than the defaults.

A preset never overrides a value that the user wrote. ``production`` changes no
number: it refuses to start servers of its own and lets Serve scale the replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ray_tracking.settings.kinds import Thresholds

PresetName = Literal["default", "high_volume", "memory_optimized", "production"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        "high_volume": {
            "max_batch_size": 5000,
            "batch_processing_interval_ms": 25,
            "max_buffer_size": 50_000,
            "buffer_flush_interval_ms": 10,
            "burst_delay_ms": 5000,
            "deduplication_cache_size": 500_000,
            "max_events_per_window": 100_000,
            "burst_capacity": 2000,
            "backpressure_thresholds": Thresholds(
                warning=25_000, critical=40_000, emergency=47_000
            ),
        },
        "memory_optimized": {
            "max_buffer_size": 5000,
            "buffer_compression_enabled": True,
            "deduplication_window_ms": 10_000,
            "deduplication_cache_size": 50_000,
            "backpressure_thresholds": Thresholds(warning=2500, critical=4000, emergency=4750),
        },
        "production": {},
    }
)
