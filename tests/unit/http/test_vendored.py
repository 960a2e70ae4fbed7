"""The library that the page has from npm is the one that is named, with its licence."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[3]
VENDORED = ROOT / "ray_tracking" / "http" / "dashboard" / "static" / "vendor"
MANIFEST = ROOT / "tests" / "browser" / "package.json"


def test_the_vendored_library_is_the_named_version() -> None:
    version = json.loads(MANIFEST.read_text())["devDependencies"]["uplot"]

    assert f"(v{version})" in (VENDORED / "uPlot.esm.js").read_text()[:500]
    assert "MIT" in (VENDORED / "uPlot.LICENSE").read_text()
