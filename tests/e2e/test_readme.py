"""The README's commands give the answers printed beneath them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

README = Path(__file__).parents[2] / "README.md"

#: Different each time: positions, times, tokens.
_VOLATILE = {"processingTime", "mode", "position", "partition", "index", "lastEventAt", "asOf"}


def commands() -> list[tuple[str, str]]:
    """Each ``$ command`` of the console blocks with what stands beneath it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


def stable(value: Any) -> Any:
    """The value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"/(pixel|click)/.+", r"/\1/TOKEN", value)
    return value


def comparable(text: str) -> Any:
    try:
        return stable(json.loads(text))
    except json.JSONDecodeError:
        return text


def test_the_readme_tells_the_truth(service: Service) -> None:
    """In the order in which a reader types them."""
    typed = commands()
    assert len(typed) >= 7
    for command, printed in typed:
        here = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
        answer = subprocess.run(
            ["bash", "-c", here], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
        expected = printed.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
        assert comparable(answer) == comparable(expected), command
