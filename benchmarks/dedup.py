"""
What duplicates cost: batches of 500 of which none, 1 % and 50 % were sent before.

What is repeated was sent 5,000 events before, and is told a duplicate: exactly so many must
be, and exactly the others must become rows.
"""

from __future__ import annotations

from typing import Any

from benchmarks.batch import CONNECTIONS, EVENTS, SIZE
from benchmarks.bodies import repeats
from benchmarks.lab import Figure, Lab, all_accepted

#: By their share: each so-many-th event is a duplicate.
_SHARES = {"none": None, "1 %": 100, "50 %": 2}

FIGURES = (
    *(
        Figure(
            f"{share}: acknowledged", "events/s", () if every is None else ("none: acknowledged",)
        )
        for share, every in _SHARES.items()
    ),
    *(Figure(f"{share}: told a duplicate", "events") for share, every in _SHARES.items() if every),
    *(Figure(f"{share}: rows, until all are there", "rows/s") for share in _SHARES),
)


async def run(lab: Lab) -> dict[str, float]:
    """
    Measure once.

    Raises:
        SystemExit: Another number of duplicates was told, or of rows written.
    """
    found: dict[str, float] = {}
    for share, every in _SHARES.items():
        shape: dict[str, Any] = {"batch": SIZE, "events": EVENTS, "connections": CONNECTIONS}
        result, rows_per_s = await lab.send_and_drain("/events/batch", **shape, repeat_every=every)
        all_accepted(result, f"dedup, {share}")
        if every is not None:
            sent = sum(repeats(place, every) is not None for place in range(EVENTS))
            if result.duplicates != sent:
                raise SystemExit(f"{sent:,} duplicates were sent, {result.duplicates:,} are told")
            found[f"{share}: told a duplicate"] = result.duplicates
        found[f"{share}: acknowledged"] = EVENTS / result.seconds
        found[f"{share}: rows, until all are there"] = rows_per_s
    return found
