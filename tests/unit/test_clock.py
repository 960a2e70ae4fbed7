"""The clock of a process, and the one that the processes of a node share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_tracking import clock

HOUR_MS = 3_600_000
_READ_AND_STAY = """
import sys
from pathlib import Path
from ray_tracking import clock
print(clock.node_clock(Path(sys.argv[1]))(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process of this node, which has a clock already."""
    process = subprocess.Popen(
        [sys.executable, "-c", _READ_AND_STAY, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, *, ahead_ms: int) -> None:
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + ahead_ms * 1_000_000)


def wall_ms() -> float:
    return time.time_ns() / 1e6


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_a_step_of_the_wall_clock_does_not_move_it(
    monkeypatch: pytest.MonkeyPatch, ahead_ms: int
) -> None:
    ours, before_ms = clock.steady_clock(), wall_ms()
    set_wall_clock(monkeypatch, ahead_ms=ahead_ms)
    assert ours() == pytest.approx(before_ms, abs=5000)


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_who_comes_later_goes_by_the_clock_of_those_that_live(
    neighbour: subprocess.Popen[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ahead_ms: int,
) -> None:
    before_ms = wall_ms()
    set_wall_clock(monkeypatch, ahead_ms=ahead_ms)
    assert clock.node_clock(tmp_path)() == pytest.approx(before_ms, abs=5000)


def test_who_is_alone_reads_the_wall_clock_again(
    neighbour: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour.kill()
    neighbour.wait(10)
    set_wall_clock(monkeypatch, ahead_ms=HOUR_MS)
    assert clock.node_clock(tmp_path)() == pytest.approx(wall_ms(), abs=5000)


def test_the_directory_is_made(tmp_path: Path) -> None:
    assert clock.node_clock(tmp_path / "new" / "data")() == pytest.approx(wall_ms(), abs=5000)


def test_a_step_back_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = clock.ClockSteps()
    assert steps.back_s() == 0
    set_wall_clock(monkeypatch, ahead_ms=-HOUR_MS)
    assert steps.back_s() == pytest.approx(3600, abs=5)
    assert steps.back_s() == 0


def test_a_step_forward_is_none_back_but_the_way_from_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = clock.ClockSteps()
    set_wall_clock(monkeypatch, ahead_ms=HOUR_MS)
    assert steps.back_s() == 0
    set_wall_clock(monkeypatch, ahead_ms=-HOUR_MS)
    assert steps.back_s() == pytest.approx(3600, abs=5)
