"""`ray-tracking keys`, as an operator meets it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from ray_tracking import cli
from ray_tracking.settings import Settings


def new(*scopes: str) -> Result:
    return CliRunner().invoke(cli.main, ["keys", "new", *scopes])


def test_what_it_prints_is_a_setting() -> None:
    made = new("read", "ingest", "read")
    assert made.exit_code == 0
    (key,) = Settings.load({}, env={"TRACKING_API_KEYS": made.stdout.strip()}).api_keys
    assert key.scopes == {"read", "ingest"}
    assert len(key.key.get_secret_value()) >= 43
    assert key.key.get_secret_value() in made.stderr


def test_no_key_is_made_twice() -> None:
    assert new("admin").stdout != new("admin").stdout


def test_a_key_opens_something() -> None:
    refused = new()
    assert refused.exit_code == 2
    assert "ingest|read|admin" in refused.stderr


def test_a_scope_that_there_is_not_is_named() -> None:
    refused = new("write")
    assert refused.exit_code == 2
    assert "'write'" in refused.stderr
    assert "ingest" in refused.stderr
