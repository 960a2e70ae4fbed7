"""The commands that work on Postgres and Redis themselves, where no service has stored anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ray_tracking import cli
from ray_tracking.settings import environment

COMMANDS = [
    ["verify"],
    ["verify", "spring"],
    ["replay", "spring"],
    ["replay", "--dry-run"],
    ["retention", "--dry-run"],
    ["log", "gaps"],
    ["log", "spools"],
    ["log", "accept-gap", "0", "--yes"],
    ["log", "forget-spool", "x", "--yes"],
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):  # noqa: TID251  the tests must not depend on it
        if name.startswith(environment.PREFIX) or name in environment.PLAIN_NAMES.values():
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refused(arguments: list[str], where: Path) -> None:
    result = CliRunner().invoke(cli.main, arguments)

    assert (result.exit_code, result.stdout, result.stderr) == (
        2,
        "",
        f"ray-tracking: data_dir: nothing is stored in {where}; run this with the settings of "
        "the service (TRACKING_DATA_DIR), or set DATABASE_URL and REDIS_URL\n",
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_where_nothing_is_stored_nothing_is_said_to_be_fine(
    tmp_path: Path, arguments: list[str]
) -> None:
    """A fresh Postgres knows no difference and no gap; none is made."""
    refused(arguments, tmp_path / ".ray_tracking")
    assert list(tmp_path.iterdir()) == []


def test_one_of_two_servers_is_not_what_the_service_has(tmp_path: Path) -> None:
    """It has a Redis of its own: a guard that runs would end its Postgres to run both."""
    (tmp_path / ".ray_tracking" / "postgres").mkdir(parents=True)
    refused(["log", "gaps"], tmp_path / ".ray_tracking" / "valkey")
    refused(["verify"], tmp_path / ".ray_tracking" / "valkey")


def test_a_postgres_that_is_named_has_no_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event log has them, and there is none."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    refused(["log", "gaps"], tmp_path / ".ray_tracking")
