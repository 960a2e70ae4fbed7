"""How much of everything: what the options of the command line say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """
    One start of the benches.

    Args:
        runs: Of each bench that takes turns with others.
        seconds: Of each run, where a bench goes by time.
        sustained_s: Of a run where it must be long.
        connections: How many a closed loop sends over.
        backlog: Events that wait.
        rows: That are there when more are written, or when they are read.
        overload_s: How long more is offered than can be taken.
        outage_s: How long Redis is away; Postgres is away five times as long.
        memory_s: How long memory is watched.
        rate: Requests per second while a server is away.
    """

    runs: int
    seconds: float
    sustained_s: float
    connections: int
    backlog: int
    rows: int
    overload_s: float
    outage_s: float
    memory_s: float
    rate: float
