"""Every command of the runbook works, and says what stands beneath it but for the values."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import BIN, Service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


def commands() -> list[tuple[str, list[str]]]:
    """Each ``$ command`` of the console blocks, and the lines beneath it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", RUNBOOK.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *printed = part.strip().split("\n")
            found.append((command, printed))
    return found


def shape(line: str) -> Any:
    """A line without what differs from run to run: values of JSON, numbers, moments."""
    try:
        return _keys(json.loads(line.replace("'", '"')))
    except json.JSONDecodeError:
        line = re.sub(r"\b(healthy|degraded|unhealthy)\b.*", "", line)
        return re.sub(r"^ *(ok|!!|XX) ", "", re.sub(r" [0-9.e+-]+$", "", line)).strip()


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _keys(its) for name, its in value.items() if name not in _ONLY_IN_TROUBLE}
    return None


_ONLY_IN_TROUBLE = {"error", "parts", "action"}


def run(service: Service, command: str) -> list[str]:
    """Type it on the machine where the service runs."""
    done = subprocess.run(
        ["bash", "-c", command.replace("localhost:8000", f"127.0.0.1:{service.port}")],
        env={
            "PATH": f"{BIN}:{os.environ['PATH']}",  # noqa: TID251
            "TRACKING_DATA_DIR": str(service.data_dir),
            "TRACKING_PORT": str(service.port),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.replace(f"127.0.0.1:{service.port}", "127.0.0.1:8000").splitlines()


def test_the_runbook_tells_the_truth(service: Service) -> None:
    typed = commands()
    assert len(typed) >= 15
    for command, printed in typed:
        # What is to be done stands beneath what is not well.
        said = [line for line in run(service, command) if not line.startswith("      since ")]
        answer = [shape(line) for line in said]
        if "…" in printed:
            assert answer, command
            printed = printed[: printed.index("…")]
            answer = answer[: len(printed)]
        if printed:
            assert answer == [shape(line) for line in printed], command
