"""
The highest rate that is sustained: open loop, found by offering more and more.

A rate is sustained when, over the whole time, at least 99.9 % of what was offered is
acknowledged, nothing is refused, and the 99th percentile is at most 250 ms after a request
was due. The rate that is found is one that was; 5 % more was not, twice in a row
unless it was far from it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from benchmarks.load import Result

SHARE, P99_MS = 0.999, 250.0
_FINE = 1.05
_FIRST_STEP, _LARGEST_STEP = 1.1, 2.0
_NEAR = 0.95
_LOWEST = 0.01

#: Offers so many requests a second, and says what was answered.
Offer = Callable[[float], Awaitable[Sequence[Result]]]


class Sustained(NamedTuple):
    """A rate in requests per second, and what was answered at it, by load."""

    rate: float
    results: Sequence[Result]

    @property
    def generator_percent(self) -> float:
        """What the load generators took, of one processor."""
        return sum(result.generator_percent for result in self.results)


async def search(offer: Offer, start: float) -> Sustained:
    """
    Find it, near to a rate that is likely; 0 where not even a hundredth of that is sustained.
    """
    best: Sustained | None = None
    too_much, step, rate = math.inf, _FIRST_STEP, start
    while best is None or too_much > best.rate * _FINE:
        results = await offer(rate)
        sustained = all(map(is_sustained, results))
        if not sustained and all(map(_is_near, results)):
            results = await offer(rate)
            sustained = all(map(is_sustained, results))
        if sustained:
            best = Sustained(rate, results)
        else:
            too_much = rate
        if best is None:
            rate = too_much / step
        elif too_much == math.inf:
            rate = best.rate * step
        else:
            rate = math.sqrt(best.rate * too_much)
        if best is None or too_much == math.inf:
            step = min(step * step, _LARGEST_STEP)
        if rate < _LOWEST * start:
            return Sustained(0.0, results)
    return best


def is_sustained(result: Result) -> bool:
    """Whether what was offered was."""
    return (
        result.acknowledged >= SHARE * result.offered
        and not result.refused
        and result.p99_ms <= P99_MS
    )


def _is_near(result: Result) -> bool:
    """Whether a bad moment may have been the reason."""
    return result.acknowledged >= _NEAR * result.offered
