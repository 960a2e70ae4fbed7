"""
Where the time of the processors goes: for each event, by kind of process, until it is a row.

Batches of 500, then single events. The load generator is not in it, but what the processes
do all the time is: Ray's own take some of it also when nothing is to be done.
"""

from __future__ import annotations

from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.lab import Figure, Lab
from benchmarks.processes import KINDS, cpu_s
from benchmarks.statements import counting

_WAYS = ("batch", "single")
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"

FIGURES = tuple(
    Figure(f"{way}: {what}", unit)
    for way in _WAYS
    for what, unit in (
        *((kind, "us/event") for kind in KINDS),
        ("all", "us/event"),
        ("statements", "per 1000"),
        ("transactions", "per 1000"),
    )
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    batches = {"batch": SIZE, "events": EVENTS, "connections": CONNECTIONS}
    return {
        **await _measure(lab, "batch", "/events/batch", **batches),
        **await _measure(lab, "single", "/events"),
    }


async def _measure(lab: Lab, way: str, path: str, **shape: int) -> dict[str, float]:
    async with counting(lab) as counted:
        before, commits = cpu_s(lab.service), await lab.database.fetchval(_COMMITS)
        result, _ = await lab.send_and_drain(path, **shape)
        after = cpu_s(lab.service)
    events = result.acknowledged * shape.get("batch", 1)
    spent_us = {kind: (after[kind] - before[kind]) * 1e6 / events for kind in KINDS}
    # What sessions have done they report once a second at the most.
    commits = await lab.database.fetchval(_COMMITS) - commits
    return {
        **{f"{way}: {kind}": value for kind, value in spent_us.items()},
        f"{way}: all": sum(spent_us.values()),
        f"{way}: statements": counted.statements * 1000 / events,
        f"{way}: transactions": commits * 1000 / events,
    }
