"""What the figures are to show, on two cores with the load generator on them too: met or not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

from benchmarks.lab import Figure
from benchmarks.report import Runs, number, share

_COPY = "COPY, asyncpg's encoding"
_ROWS = "rows, until all are in Postgres"
_NOOP, _NOOP_SUSTAINED = "no-op Starlette, same listener", "no-op Starlette, sustained"
_EMPTY = "empty: processors"


class Goal(NamedTuple):
    """
    What the median of one figure is to be.

    Args:
        text: What it says.
        bench: Where the figure stands.
        figure: Its name.
        bound: On which side of the limit it is to be.
        limit: In the figure's unit, or of the other figure.
        of: The other figure, where the goal is a fraction.
    """

    text: str
    bench: str
    figure: str
    bound: Literal["at least", "at most"]
    limit: float
    of: str | None = None


GOALS = (
    Goal("single events, closed loop, of no-op", "single", "acknowledged", "at least", 0.45, _NOOP),
    Goal("single events, sustained, of no-op", "single", "sustained", "at least", 0.45,
         _NOOP_SUSTAINED),
    Goal("pixel and click, closed loop, of no-op", "pixel", "acknowledged", "at least", 0.45,
         _NOOP),
    Goal("pixel and click, sustained, of no-op", "pixel", "sustained", "at least", 0.45,
         _NOOP_SUSTAINED),
    Goal("batch of 500, acknowledged, events/s", "batch", "acknowledged", "at least", 40_000),
    Goal("batch of 500, of validation and XADD", "batch", "acknowledged", "at least", 0.90,
         "JSON validation and XADD"),
    Goal("batch of 500, rows for a minute, of COPY", "batch-minute", _ROWS, "at least", 0.70,
         _COPY),
    Goal("acknowledged at 1,000/s, p50, ms", "latency", "1000/s: acknowledged, p50", "at most", 5),
    Goal("acknowledged at 1,000/s, p99, ms", "latency", "1000/s: acknowledged, p99", "at most", 25),
    Goal("then a row at 1,000/s, p99, ms", "latency", "1000/s: then a row, p99", "at most", 100),
    Goal("durability, single, times", "durability", "single: cost", "at most", 1.5),
    Goal("durability, batch, times", "durability", "batch: cost", "at most", 1.5),
    Goal("stats, health, metrics, p95, ms", "looking", "one now and then: p95", "at most", 10),
    Goal("the same, ten pollers, p95, ms", "looking", "ten pollers: p95", "at most", 10),
    Goal("processors, batch, us/event", "cpu", "batch: all", "at most", 45),
    Goal("statements, batch, per 1000 events", "cpu", "batch: statements", "at most", 10),
    Goal("statements, single, per 1000 events", "cpu", "single: statements", "at most", 10),
    Goal("memory of actors and replicas, MiB", "memory", "actors and replicas, at the end",
         "at most", 700e6 / 2**20),
    Goal("memory of all processes, MiB", "memory", "all processes, at the end", "at most",
         2e9 / 2**20),
    Goal("cost per event with many rows, of empty", "backlog", "all rows: processors", "at most",
         1.15, _EMPTY),
    Goal("cost per event with a backlog, of empty", "backlog", "a backlog: processors", "at most",
         1.15, _EMPTY),
    Goal("cold start, no data yet, s", "cold-start", "no data yet: first event acknowledged",
         "at most", 15),
    Goal("a replay beside ingest, events/s", "replay", "replayed beside ingest", "at least",
         50_000),
    Goal("ingest beside a replay, of alone", "replay", "acknowledged beside it", "at least", 0.8,
         "acknowledged, no replay"),
    Goal("high_volume's batches, of default's", "presets", "high_volume: batches acknowledged",
         "at least", 1.3, "default: batches acknowledged"),
    Goal("memory_optimized's actors, of default's", "presets",
         "memory_optimized: actors and replicas", "at most", 0.7, "default: actors and replicas"),
    Goal("memory_optimized's processes, of default's", "presets",
         "memory_optimized: all processes", "at most", 0.7, "default: all processes"),
)  # fmt: skip


def judge(benches: Mapping[str, tuple[Sequence[Figure], Runs]]) -> list[dict[str, Any]]:
    """Each goal of the benches that were run, with what was found."""
    judged = []
    for goal in GOALS:
        if goal.bench in benches:
            _, runs = benches[goal.bench]
            found = median(run[goal.figure] for run in runs)
            if goal.of is not None:
                found = share(found, median(run[goal.of] for run in runs))
            met = found >= goal.limit if goal.bound == "at least" else found <= goal.limit
            judged.append({**goal._asdict(), "found": found, "met": met})
    return judged


def table(judged: Iterable[Mapping[str, Any]]) -> str:
    """The goals, each beside what was found."""
    lines = [f"\n{'goals':<48}{'found':>12}{'goal':>20}"]
    for goal in judged:
        wanted = f"{goal['bound']} {_short(goal['limit'])}"
        met = "met" if goal["met"] else "NOT MET"
        lines.append(f"  {goal['text']:<46}{_short(goal['found']):>12}{wanted:>20}  {met}")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 and not math.isnan(value) else number(value)
