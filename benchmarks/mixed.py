"""
Everything at once, as a campaign's day has it: the highest rate that is sustained.

Of 100 requests 70 are pixels and clicks (one in five), 28 are webhooks of one event, and 2
are batches of 50 events; so half of the events come in batches. Open loop; for what is
sustained see :mod:`benchmarks.sustained`, which here each of the three must be.
"""

from __future__ import annotations

from typing import Any

from benchmarks.lab import Figure, Lab

_BATCH = 50
#: Each with its share of the requests.
_LOADS: dict[str, dict[str, Any]] = {
    "hits": {"path": "/pixel", "click_every": 5, "share": 0.70},
    "webhooks": {"path": "/webhook/tracking", "share": 0.28},
    "batches": {"path": "/events/batch", "batch": _BATCH, "share": 0.02},
}
_EVENTS_A_REQUEST = sum(load["share"] * load.get("batch", 1) for load in _LOADS.values())

FIGURES = (
    Figure("no-op Starlette, sustained", "requests/s"),
    Figure("sustained", "requests/s", ("no-op Starlette, sustained",)),
    Figure("sustained, events", "events/s"),
    *(
        Figure(f"{name}: {what}", unit)
        for name in _LOADS
        for what, unit in (("p50", "ms"), ("p99", "ms"))
    ),
    Figure("load generators", "% of one"),
)
_LIKELY_PER_S = 5_000


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    noop = await lab.sustained(lab.noop_port, 2 * _LIKELY_PER_S, *_LOADS.values())
    found = await lab.sustained(lab.service.port, _LIKELY_PER_S, *_LOADS.values())
    return {
        "no-op Starlette, sustained": noop.rate,
        "sustained": found.rate,
        "sustained, events": found.rate * _EVENTS_A_REQUEST,
        **{
            f"{name}: {what}": value
            for name, result in zip(_LOADS, found.results, strict=True)
            for what, value in (("p50", result.p50_ms), ("p99", result.p99_ms))
        },
        "load generators": found.generator_percent,
    }
