"""
Which settings may change while everything runs, and what a change comes to.

A change is judged as a whole, together with all that stays: it is possible, or nothing of it
happens. What was said last counts, so it goes before the environment, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ray_tracking.errors import SettingsError
from ray_tracking.settings.environment import did_you_mean
from ray_tracking.settings.model import Settings

#: The others are what servers, connections and processes were made with.
CHANGEABLE = (
    "processing_mode",
    "max_batch_size",
    "batch_processing_interval_ms",
    "realtime_threshold",
    "buffer_flush_interval_ms",
    "burst_delay_ms",
    "deduplication_window_ms",
    "deduplication_cache_size",
    "idempotency_window_ms",
    "max_events_per_window",
    "rate_limit_window_ms",
    "burst_capacity",
    "backpressure_thresholds",
    "answer_timeout_ms",
    "max_backlog_bytes",
    "raw_retention_days",
    "metrics_interval_s",
    "health_check_interval_s",
    "log_level",
)


class Change(NamedTuple):
    """Of one setting, as JSON can hold it."""

    name: str
    old: Any
    new: Any


def changed(base: Settings, values: Any) -> Settings:
    """
    The settings with some of them changed.

    Args:
        base: As the service was started.
        values: By name, as in the Serve YAML. None and an empty mapping change nothing.

    Raises:
        SettingsError: One line that names what is unknown, impossible, or cannot change now.
    """
    if values is None:
        return base
    if not isinstance(values, Mapping):
        raise SettingsError("user_config must be a mapping of settings to values")
    for name in values:
        if name in CHANGEABLE:
            continue
        if name in Settings.model_fields:
            raise SettingsError(
                f"{name}: cannot change while the service runs: set it in args or in the "
                f"environment, and start anew"
            )
        raise SettingsError(f"{name}: unknown setting{did_you_mean(str(name), CHANGEABLE)}")
    return base.changed(values)


def differences(old: Settings, new: Settings) -> list[Change]:
    """What is otherwise, in the order of the table above."""
    before, after = old.public_dict(), new.public_dict()
    return [
        Change(name, before[name], after[name])
        for name in CHANGEABLE
        if before[name] != after[name]
    ]
