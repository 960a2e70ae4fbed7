"""
From the acknowledgement of an event to the frame at a subscriber.

100 clients, each with one campaign of 200. The frame of an event is the first whose figures
have it: the k-th event of a campaign that was acknowledged is there when its opens are k. Where
the frame comes before the acknowledgement, the time is 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from benchmarks import listeners, steady
from benchmarks.answers import Answer, percentile
from benchmarks.bodies import CAMPAIGNS
from benchmarks.lab import Figure
from benchmarks.listeners import Heard
from benchmarks.plan import Plan
from benchmarks.processes import cpu_s
from benchmarks.service import Service

_CLIENTS, _CAMPAIGNS = 100, 1
#: Events per second, and how many in a request.
_LOADS: tuple[tuple[int, int | None], ...] = ((1000, None), (5000, 100))
_DRAIN_S = 60

FIGURES = tuple(
    Figure(f"{rate}/s: {what}", unit)
    for rate, _ in _LOADS
    for what, unit in (
        ("ack to frame, p50", "ms"),
        ("ack to frame, p99", "ms"),
        ("messages heard", "/s"),
        ("broadcaster", "us/event"),
        ("not acknowledged", "events"),
    )
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once, on a service of its own."""
    found: dict[str, float] = {}
    seconds = 2 * plan.seconds
    async with Service() as service:
        first = 1
        for rate, batch in (_LOADS[0], *_LOADS):  # the first time is to warm up
            order = steady.Order(
                service.port, rate=rate / (batch or 1), seconds=seconds, batch=batch, first=first
            )
            crowd = listeners.Order(service.port, _CLIENTS, _CAMPAIGNS)
            async with listeners.listening(crowd) as clients:
                await clients.all_subscribed()
                spent_s = cpu_s(service)["broadcaster"]
                async with steady.load(order) as load:
                    await load.finish()
                spent_s = cpu_s(service)["broadcaster"] - spent_s
                await service.until_waiting(0, _DRAIN_S, ("in_log", "buffered"))
                heard = await clients.finish()
            first += round(seconds * rate) + rate
            taken = [answer for answer in load.answers if answer.acknowledged]
            waits_ms = _waits_ms(taken, heard)
            name = f"{rate}/s"
            found |= {
                f"{name}: ack to frame, p50": percentile(waits_ms, 0.50),
                f"{name}: ack to frame, p99": percentile(waits_ms, 0.99),
                f"{name}: messages heard": len(heard) / seconds,
                f"{name}: broadcaster": spent_s * 1e6 / (rate * seconds),
                f"{name}: not acknowledged": sum(
                    answer.events for answer in load.answers if not answer.acknowledged
                ),
            }
    return [found]


def _waits_ms(taken: list[Answer], heard: list[Heard]) -> list[float]:
    """For each event and each subscriber of its campaign."""
    told_s: dict[int, list[float]] = defaultdict(list)
    for answer in sorted(taken, key=lambda answer: answer.due_s + answer.took_s):
        for number in answer.numbers():
            told_s[number % CAMPAIGNS].append(answer.due_s + answer.took_s)
    by_subscription: dict[tuple[int, int], list[Heard]] = defaultdict(list)
    for one in heard:
        by_subscription[one.client, one.campaign].append(one)
    waits_ms = []
    for (_, campaign), messages in by_subscription.items():
        before = messages[0].opens
        opens = [message.opens - before for message in messages]
        for number, at_s in enumerate(told_s[campaign], start=1):
            message = messages[bisect_left(opens, number)]
            waits_ms.append(max(0.0, message.at_s - at_s) * 1000)
    return waits_ms
