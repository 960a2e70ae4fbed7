"""A user's rules are found by name, or the start stops with one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ray_tracking.errors import InvalidEvent, SettingsError
from ray_tracking.events import EventType
from ray_tracking.pipeline.validate import validate_item
from ray_tracking.sources.rules import load_rules

HERE = __name__


def no_internal_leads(event_type: EventType, data: Mapping[str, Any]) -> tuple[str, str] | None:
    return ("leadId", "is one of us") if data.get("leadId") == "us" else None


def test_a_rule_refuses_what_it_does_not_like(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "my_rules", sys.modules[HERE])
    rules = load_rules(["my_rules:no_internal_leads"])
    item = {
        "eventType": "EMAIL_OPEN",
        "eventData": {
            "campaignId": "c", "leadId": "us", "emailId": "e", "timestamp": "2026-11-01T09:00:00Z",
        },
    }  # fmt: skip
    with pytest.raises(InvalidEvent) as refused:
        validate_item(item, now_s=2e9, rules=rules)
    assert refused.value.details == [("leadId", "is one of us")]

    item["eventData"]["leadId"] = "ada"  # type: ignore[index]
    assert validate_item(item, now_s=2e9, rules=rules).data["leadId"] == "ada"


@pytest.mark.parametrize("path", ["no.such.module:rule", "json:no_such_rule", "math:pi"])
def test_a_rule_that_cannot_be_used_is_named(path: str) -> None:
    with pytest.raises(SettingsError, match=path) as error:
        load_rules([path])
    assert "\n" not in str(error.value)
