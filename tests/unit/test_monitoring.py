"""What is in monitoring/ is well-formed, and speaks of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ray_tracking.http.metrics import exposition
from tests.support.promtool import MONITORING, promtool
from tests.support.snapshots import Scene

RUNBOOK = MONITORING.parent / "docs" / "runbook.md"
ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text())


def shown() -> set[str]:
    """The names of all samples that /metrics has."""
    lines = exposition(Scene().snapshot()).decode().splitlines()
    return {re.split(r"[ {]", line)[0] for line in lines if not line.startswith("#")}


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_tracking[_:][a-z0-9_:]+", expression))


def test_prometheus_has_nothing_to_say_about_the_metrics() -> None:
    assert promtool("check", "metrics", given=exposition(Scene().snapshot())) == ""


def test_the_alerts_do_what_their_own_tests_say() -> None:
    promtool("check", "rules", MONITORING / "alerts.yml")
    promtool("check", "config", MONITORING / "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", MONITORING / "alerts_test.yml")


def test_the_tests_of_the_alerts_can_fail(tmp_path: Path) -> None:
    alerts = (MONITORING / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(alerts.replace("for: 1m", "for: 1h"))
    (tmp_path / "alerts_test.yml").write_bytes((MONITORING / "alerts_test.yml").read_bytes())
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", tmp_path / "alerts_test.yml")


def test_every_metric_that_an_alert_or_the_dashboard_asks_for_is_there() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = set().union(*(names_in(rule["expr"]) for rule in RULES))
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            asked |= names_in(target["expr"])
    assert len(asked) > 30
    assert asked <= shown() | recorded


def test_every_alert_leads_to_a_chapter_of_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings
    }
    for rule in RULES:
        if "alert" in rule:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert page == "docs/runbook.md"
            assert not anchor or anchor in anchors, rule["alert"]


def test_the_dashboard_can_be_imported() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert all(panel["description"] for panel in DASHBOARD["panels"] if panel["type"] != "row")
