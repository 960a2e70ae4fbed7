"""Where a campaign takes place: a directory, servers, small disks, and a service to start."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.chaos.clock import WallClock
from tests.chaos.servers import Disk, Outside
from tests.chaos.target import Target


@contextlib.asynccontextmanager
async def fresh_target(
    flavour: str, product: Path | None = None, **settings: str
) -> AsyncIterator[Target]:
    """
    A service in a directory of its own, not started.

    Args:
        flavour: ``embedded``; ``outside``, with servers that are not its own; ``clock``,
            embedded, with a clock that can be set.
        product: As for :class:`~tests.chaos.target.Target`.
        settings: The same.

    Everything is ended and removed at the end; the logs stay where a ``report.json`` is
    beside them, or an error came.
    """
    # Short, because sockets live below it.
    root = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    outside_too = flavour == "outside"
    outside: Outside | None = None
    disks: dict[str, Disk] = {}
    target: Target | None = None
    keep = True
    try:
        disks = mount(root) if outside_too else {}
        outside = Outside(root / "servers") if outside_too else None
        if outside is not None:
            await outside.start()
        clock = WallClock(root / "clock") if flavour == "clock" else None
        target = Target(root, outside, product, clock, **settings)
        target.disks = disks
        yield target
        keep = (root / "report.json").exists()
    finally:
        if target is not None:
            target.kill_all()
        if outside is not None:
            await outside.stop()
        for disk in disks.values():
            disk.unmount()
        if not keep:
            shutil.rmtree(root, ignore_errors=True)


def mount(root: Path) -> dict[str, Disk]:
    """Small disks, by what lies on them; none where nobody may mount any."""
    sizes_mib = {"redis": 512, "postgres": 1536, "spool": 64}
    places = {
        "redis": root / "servers" / "redis",
        "postgres": root / "servers" / "db",
        "spool": root / "data" / "spool",
    }
    try:
        return {name: Disk(place, sizes_mib[name]) for name, place in places.items()}
    except (OSError, subprocess.CalledProcessError):
        return {}
