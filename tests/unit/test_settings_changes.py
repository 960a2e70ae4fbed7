"""Which settings change while everything runs: as a whole, or not at all."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ray_tracking.errors import SettingsError
from ray_tracking.settings import Settings
from ray_tracking.settings.changes import CHANGEABLE, changed, differences

BASE = Settings.load({"preset": "high_volume"}, env={"TRACKING_BURST_CAPACITY": "7"})


def test_what_changes_is_said_with_old_and_new() -> None:
    new = changed(BASE, {"burst_capacity": 9, "log_level": "debug", "max_batch_size": 5000})

    assert differences(BASE, new) == [("burst_capacity", 7, 9), ("log_level", "info", "debug")]
    assert new.source_of("burst_capacity") == "user_config"
    assert new.source_of("max_buffer_size") == BASE.source_of("max_buffer_size") == "preset"


def test_what_is_not_said_again_is_as_at_the_start() -> None:
    assert changed(BASE, {}) == changed(BASE, None) == BASE


@pytest.mark.parametrize("name", CHANGEABLE)
def test_every_setting_that_may_change_is_one_and_is_checked(name: str) -> None:
    assert name in Settings.model_fields
    with pytest.raises(SettingsError, match=f"^{name}"):
        changed(BASE, {name: []})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"port": 9000}, "port: cannot change while the service runs"),
        ({"partitions": 8}, "partitions: cannot change while the service runs"),
        ({"burst_capaciti": 9}, "burst_capaciti: unknown setting; did you mean burst_capacity?"),
        ({"burst_capacity": 9, "log_level": "loud"}, "log_level"),
        (
            {"backpressure_thresholds": {"warning": 1, "critical": 2, "emergency": 60_000}},
            "backpressure_thresholds.emergency: 60000 is not possible: must be at most "
            "max_buffer_size (50000)",
        ),
        ([1], "user_config must be a mapping"),
    ],
)
def test_what_is_impossible_is_named(values: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)):
        changed(BASE, values)
