"""
How many ingress replicas are wanted, by what they record of themselves.

Serve does not see the requests, because each replica has a listener of its own, and a count of
requests under way would say little: most are over within milliseconds. Work is measured as work
instead: requests, events and sockets against what one replica does with ease. Where the loops
come too late none the less, something else costs more than that, and more replicas share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: No more than this many times as many at once, whatever a loop's lag says.
_MOST_BY_LAG = 2.0
#: Nobody goes while buffers are this full: it would have to empty its own first.
_BACKLOG_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """What one replica does with ease."""

    requests_per_s: float = 3000.0
    events_per_s: float = 15_000.0
    #: Clients of live updates.
    sockets: float = 2500.0
    loop_lag_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What a replica records, on average over the last while."""

    requests_per_s: float = 0.0
    events_per_s: float = 0.0
    sockets: float = 0.0
    #: By how much its loop comes too late.
    loop_lag_ms: float = 0.0
    #: How full its buffer is, from 0 to 1.
    backlog: float = 0.0


def wanted_replicas(loads: Sequence[ReplicaLoad], limits: ReplicaLimits, *, current: int) -> float:
    """
    How many replicas are wanted; Serve rounds up, and waits before it acts.

    Args:
        loads: Of the replicas that have recorded something.
        limits: What one of them does with ease.
        current: How many there are.
    """
    if not loads:
        return current
    # One that has just begun has not recorded anything yet; the others stand for it.
    whole = max(current, len(loads)) / len(loads)
    wanted = max(
        whole * sum(load.requests_per_s for load in loads) / limits.requests_per_s,
        whole * sum(load.events_per_s for load in loads) / limits.events_per_s,
        sum(load.sockets for load in loads) / limits.sockets,
    )
    late = sum(load.loop_lag_ms for load in loads) / len(loads) / limits.loop_lag_ms
    if late > 1:
        wanted = max(wanted, current * min(late, _MOST_BY_LAG))
    if any(load.backlog > _BACKLOG_SHARE for load in loads):
        wanted = max(wanted, current)
    return wanted
