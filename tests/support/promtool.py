"""Prometheus's own checker, the one that the machine has (Debian's package ``prometheus``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MONITORING = Path(__file__).parents[2] / "monitoring"


def promtool(*arguments: str | Path, given: bytes | None = None) -> str:
    """
    Run it, and return what it says; what it finds wrong fails the test.

    Where it is not installed the test is skipped, but never where all must be there.
    """
    binary = shutil.which("promtool")
    if binary is None:
        reason = "there is no promtool: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI"):  # noqa: TID251
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [binary, *map(str, arguments)], input=given, capture_output=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
