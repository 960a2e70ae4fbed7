"""
How many statements a service sends to its Postgres: Postgres itself writes them down.

What we ask ourselves is not among them, because it comes in sessions without a name. Each
message counts once, also one that holds several statements or takes a COPY's rows with it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.lab import Lab

_LOGGED = {
    "log_statement": "'all'",
    "log_parameter_max_length": "0",
    "log_line_prefix": "'%a|'",
}
_STATEMENT = re.compile(rb"^[^|\n]+\|LOG:  (?:statement|execute [^:]*): ", re.MULTILINE)


class Counted:
    """``statements`` is there once the counting is over."""

    statements = 0


@asynccontextmanager
async def counting(lab: Lab) -> AsyncIterator[Counted]:
    """Counts as long as it is entered; costs some microseconds a statement."""
    log = lab.service.data_dir / "postgres.log"
    for name, value in _LOGGED.items():
        await lab.database.execute(f"ALTER SYSTEM SET {name} = {value}")
    await _reload(lab, "all")
    at = log.stat().st_size
    counted = Counted()
    try:
        yield counted
    finally:
        for name in _LOGGED:
            await lab.database.execute(f"ALTER SYSTEM RESET {name}")
        await _reload(lab, "none")
    counted.statements = _count(log, at)


def _count(log: Path, at: int) -> int:
    with log.open("rb") as lines:
        lines.seek(at)
        return len(_STATEMENT.findall(lines.read()))


async def _reload(lab: Lab, expected: str) -> None:
    """Return when sessions have the new settings: each takes them before its next statement."""
    await lab.database.execute("SELECT pg_reload_conf()")
    while await lab.database.fetchval("SHOW log_statement") != expected:
        pass
