"""Medians, spread and fractions: for people as a table, for later as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab import Figure
from ray_tracking.stores.embedded.paths import postgres_binaries, valkey_binary

_RESULTS = Path(__file__).parent / "results"

#: The values of one bench: one mapping of figure to value for each run.
Runs = Sequence[Mapping[str, float]]


def table(name: str, figures: Sequence[Figure], runs: Runs) -> str:
    """The figures of one bench, each beside its ceilings."""
    return "\n".join(_lines(name, figures, runs))


def _lines(name: str, figures: Sequence[Figure], runs: Runs) -> Iterator[str]:
    yield f"\n{name:<50}{'median':>10}{'lowest':>10}{'highest':>10}"
    medians = {figure.name: median(run[figure.name] for run in runs) for figure in figures}
    for figure in figures:
        values = [run[figure.name] for run in runs]
        cells = (medians[figure.name], min(values), max(values))
        columns = "".join(f"{number(value):>10}" for value in cells)
        shares = ", ".join(
            f"{share(medians[figure.name], medians[ceiling]):.2f} of {ceiling}"
            for ceiling in figure.ceilings
        )
        yield f"  {figure.name:<48}{columns} {figure.unit:<11}{shares}".rstrip()


def share(value: float, ceiling: float) -> float:
    """Not a number where there is no ceiling."""
    return value / ceiling if ceiling else math.nan


def number(value: float) -> str:
    """Short: no more digits than mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def save(
    benches: Mapping[str, tuple[Sequence[Figure], Runs]],
    about: Mapping[str, Any],
    goals: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write all of it into a file of its own, and say which."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "goals": goals,
        "benches": {name: _bench(figures, runs) for name, (figures, runs) in benches.items()},
    }
    path = new_file(f"{(about['commit'] or 'unknown')[:9]}.json")
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def new_file(name: str) -> Path:
    """Where a file of results goes; the time stands before its name."""
    _RESULTS.mkdir(exist_ok=True)
    return _RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"


def _bench(figures: Sequence[Figure], runs: Runs) -> dict[str, Any]:
    found: dict[str, Any] = {}
    medians = {figure.name: median(run[figure.name] for run in runs) for figure in figures}
    for figure in figures:
        found[figure.name] = {
            "unit": figure.unit,
            "median": medians[figure.name],
            "runs": [run[figure.name] for run in runs],
            "ofCeiling": {
                ceiling: share(medians[figure.name], medians[ceiling])
                for ceiling in figure.ceilings
            },
        }
    return found


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "loadAtStart": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """What it ran with."""
    postgres = _output([str(postgres_binaries() / "postgres"), "--version"]) or ""
    valkey = _output([str(valkey_binary()), "--version"]) or ""
    return {
        "python": platform.python_version(),
        "ray": version("ray"),
        "ray-tracking": version("ray-tracking"),
        "uvicorn": version("uvicorn"),
        "postgres": postgres.rpartition(" ")[2],
        "valkey": valkey.partition("v=")[2].partition(" ")[0],
    }


def commit() -> str | None:
    """The commit that is checked out, marked when there are changes on top of it."""
    name = _output(["git", "rev-parse", "HEAD"])
    return name and name + ("+changes" if _output(["git", "status", "--porcelain"]) else "")


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=_RESULTS.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _first(path: str, key: str) -> str | None:
    """The value of the first line with this key, in a file of the kernel's."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
