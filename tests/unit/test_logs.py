"""What a process says, by LOG_LEVEL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog

from ray_tracking import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", ["a detail", "a fact", "a fault"]), ("info", ["a fact", "a fault"]),
     ("error", ["a fault"])],
)  # fmt: skip
def test_what_is_below_the_level_is_not_said(
    level: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log = structlog.get_logger("made before")
    logs.configure(level)
    log.debug("a detail")
    log.info("a fact")
    log.error("a fault")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(said)
    assert [json.loads(line)["event"] for line in lines] == said


def test_a_line_is_one_json_object_that_says_when_how_bad_who_and_what(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "shard-0")
    logs.configure("info")  # as at run time, when only the level changes
    structlog.get_logger("ray_tracking.shard").warning(
        "append unclear", partition=3, path=Path("/a"), reason="two\nlines", id=uuid4()
    )
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert list(said)[:5] == ["timestamp", "level", "logger", "part", "event"]
    assert said["timestamp"].endswith("Z")
    assert (said["level"], said["logger"]) == ("warning", "ray_tracking.shard")
    assert (said["part"], said["partition"], said["path"]) == ("shard-0", 3, "/a")


def test_a_traceback_is_in_its_line_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info")
    address = "@".join(("ada", "example.com"))
    try:
        raise ValueError(len(address))
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = capsys.readouterr().out.splitlines()
    assert "ValueError: 15" in json.loads(line)["exception"]
    assert address not in line
