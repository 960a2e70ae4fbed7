"""What a process says, by LOG_LEVEL."""

from __future__ import annotations

from collections.abc import Iterator

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
    assert all(text in line for text, line in zip(said, lines, strict=True))
