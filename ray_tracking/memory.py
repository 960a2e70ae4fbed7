"""What this process takes of the machine's memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_STATM = Path("/proc/self/statm")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PAGE_BYTES = resource.getpagesize()


def rss_bytes() -> int:
    """The resident set."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES


def total_bytes() -> int:
    """What there is for all processes: of the machine, or of the container that limits them."""
    machine = _PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine
