"""
Three times more than it can take: what it still takes, and what the others are told.

The peak is that of a closed loop of batches, the median of some short runs. Then an open loop
offers three times as much, as clients do that know nothing of each other. What is accepted counts
if its answer came within that time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from benchmarks import load, steady
from benchmarks.answers import (
    NO_ANSWER,
    NOT_SENT,
    Answer,
    acknowledged,
    compare_rows,
    percent,
    percentile,
)
from benchmarks.lab import Figure, all_accepted
from benchmarks.plan import Plan
from benchmarks.processes import KINDS, Sample, watching
from benchmarks.service import Service

_BATCH, _CONNECTIONS = 500, 8
_TIMES = 3
_DRAIN_S = 600

FIGURES = (
    Figure("peak, closed loop", "events/s"),
    Figure("offered", "events/s", ("peak, closed loop",)),
    Figure("accepted", "events/s", ("peak, closed loop",)),
    Figure("accepted: p50", "ms"),
    Figure("accepted: p99", "ms"),
    Figure("refused, of what was sent", "%"),
    Figure("refused without a Retry-After", "requests"),
    Figure("without an answer", "requests"),
    Figure("not sent, 900 on their way", "%"),
    *(Figure(f"highest memory: {kind}", "MiB") for kind in KINDS),
    Figure("all rows after another", "s"),
    Figure("acknowledged, but no row", "events"),
    Figure("more than one row", "events"),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    async with Service() as service:
        peak_per_s, first = await _peak(service, plan)
        order = steady.Order(
            service.port,
            rate=_TIMES * peak_per_s / _BATCH,
            seconds=plan.overload_s,
            batch=_BATCH,
            first=first,
        )
        async with steady.load(order) as offered, watching(service, every_s=1) as samples:
            began_s = time.perf_counter()
            await offered.finish()
        over_s = max(
            answer.due_s + answer.took_s for answer in offered.answers if answer.status > 0
        )
        rows_s = await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered", "spooled"))
        numbers = [*range(1, first), *acknowledged(offered.answers)]
        missing, doubled = await compare_rows(service.database_url, numbers)
    return [
        {
            "peak, closed loop": peak_per_s,
            **_told(offered.answers, began_s, plan.overload_s),
            **{f"highest memory: {kind}": _highest(samples, kind) for kind in KINDS},
            "all rows after another": rows_s - over_s,
            "acknowledged, but no row": missing,
            "more than one row": doubled,
        }
    ]


async def _peak(service: Service, plan: Plan) -> tuple[float, int]:
    """Events per second of the median run, and the number of the next event."""
    next_number, peaks = 1, []
    for seconds in (1, *[plan.seconds] * plan.runs):
        result = await load.send(
            load.Order(
                service.port,
                "/events/batch",
                batch=_BATCH,
                connections=_CONNECTIONS,
                seconds=seconds,
                first=next_number,
            )
        )
        all_accepted(result, "peak")
        await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered"))
        next_number = result.next_number
        peaks.append(result.requests * _BATCH / result.seconds)
    return median(peaks[1:]), next_number  # the first one was to warm up


def _told(answers: Sequence[Answer], began_s: float, seconds: float) -> dict[str, float]:
    """What clients were told, within the time in which so much was offered."""
    sent = [answer for answer in answers if answer.status != NOT_SENT]
    taken = [answer for answer in sent if answer.acknowledged]
    in_time = [answer for answer in taken if answer.due_s + answer.took_s <= began_s + seconds]
    events = sum(answer.events for answer in sent)
    refused = sum(
        answer.events - len(answer.numbers()) for answer in sent if answer.status != NO_ANSWER
    )
    return {
        "offered": sum(answer.events for answer in answers) / seconds,
        "accepted": sum(len(answer.numbers()) for answer in in_time) / seconds,
        "accepted: p50": percentile((answer.took_s for answer in taken), 0.50) * 1000,
        "accepted: p99": percentile((answer.took_s for answer in taken), 0.99) * 1000,
        "refused, of what was sent": 100 * refused / events,
        "refused without a Retry-After": sum(answer.no_retry_after for answer in sent),
        "without an answer": sum(answer.status == NO_ANSWER for answer in sent),
        "not sent, 900 on their way": percent(
            (answer for answer in answers if answer.status == NOT_SENT), answers
        ),
    }


def _highest(samples: Sequence[Sample], kind: str) -> float:
    return max(sample.mib[kind] for sample in samples)
