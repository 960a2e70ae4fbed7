"""What can be imported without the machinery: the pipeline, the settings and the nouns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ray_tracking

PACKAGE = Path(ray_tracking.__file__).parent
HEAVY = ("ray", "starlette", "uvicorn", "asyncpg", "redis", "prometheus_client")
PIPELINE = sorted(
    f"ray_tracking.pipeline.{path.stem}"
    for path in (PACKAGE / "pipeline").glob("*.py")
    if path.stem != "__init__"
)


def loaded(*modules: str) -> str:
    """The heavy modules that importing these one after the other brings along."""
    script = f"""
import sys
for name in {modules!r}:
    __import__(name)
    found = sorted({set(HEAVY)!r} & set(sys.modules))
    if found:
        print(name, "imports", *found)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_the_package_itself_imports_next_to_nothing() -> None:
    """``import ray_tracking`` stands in scripts that only send an event."""
    assert loaded("ray_tracking") == ""


@pytest.mark.parametrize("module", ["ray_tracking.errors", "ray_tracking.events"])
def test_the_nouns_import_without_the_machinery(module: str) -> None:
    assert loaded(module) == ""


@pytest.mark.parametrize(
    "name", ["EventType", "ProcessingMode", "TrackingClient", "TrackingEventProcessor"]
)
def test_what_the_package_offers_imports_without_the_machinery(name: str) -> None:
    """Ray is imported when a processor is initialized."""
    script = (
        f"import sys; from ray_tracking import {name}; print(*({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_everything_that_the_package_says_it_has_is_there() -> None:
    for name in ray_tracking.__all__:
        assert getattr(ray_tracking, name).__module__.startswith("ray_tracking.")
    with pytest.raises(AttributeError, match="nonsense"):
        ray_tracking.nonsense  # noqa: B018


def test_analytics_import_without_the_machinery() -> None:
    assert loaded("ray_tracking.analytics") == ""


def test_the_settings_import_without_the_machinery() -> None:
    """The command line checks a configuration on a machine without Ray or databases."""
    assert loaded("ray_tracking.settings") == ""


def test_every_step_of_the_pipeline_imports_without_the_machinery() -> None:
    assert len(PIPELINE) > 10
    assert loaded(*PIPELINE) == ""
