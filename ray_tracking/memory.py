"""What this process takes of the machine's memory."""

from __future__ import annotations

import resource
from pathlib import Path

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()


def rss_bytes() -> int:
    """The resident set."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
