"""A user's rules are found by name, or the start stops with one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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


def test_a_module_that_fails_while_it_is_imported_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_rules.py").write_text("def rule(:\n")
    (tmp_path / "unset_rules.py").write_text("import os\nos.environ['NOT_SET_ANYWHERE']\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("broken_rules:rule", "unset_rules:rule"):
        with pytest.raises(SettingsError, match=f"validation_rules: '{path}' cannot be imported"):
            load_rules([path])
