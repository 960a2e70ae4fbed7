"""
Stats, health and metrics: what they take, asked by one now and then, and by ten.

The first asks so rarely that a replica would have to ask as well; the ten ask ten times a second,
each over a connection of its own, so they are with all replicas.
"""

from __future__ import annotations

import asyncio
import time
from itertools import cycle
from statistics import quantiles

import aiohttp

from benchmarks.lab import Figure, Lab

_PATHS = ("/metrics/tracking", "/health/tracking", "/metrics")
_POLLERS = 10
_APART_S = 0.6
_OFTEN_S = 0.1
_ASKED = 24

FIGURES = tuple(
    Figure(f"{who}: {what}", "ms")
    for who in ("one now and then", "ten pollers")
    for what in ("p50", "p95")
)


async def run(lab: Lab) -> dict[str, float]:
    """Measure once."""
    url = f"http://127.0.0.1:{lab.service.port}"
    async with aiohttp.ClientSession(url) as session:
        rare = []
        for _, path in zip(range(_ASKED), cycle(_PATHS), strict=False):
            await asyncio.sleep(_APART_S)
            rare.append(await _ask(session, path))
    pollers = [_poll(url, lab.plan.seconds) for _ in range(_POLLERS)]
    often = [took_ms for asked in await asyncio.gather(*pollers) for took_ms in asked]
    return {
        f"{who}: p{percent}": quantiles(took_ms, n=100)[percent - 1]
        for who, took_ms in (("one now and then", rare), ("ten pollers", often))
        for percent in (50, 95)
    }


async def _poll(url: str, seconds: float) -> list[float]:
    took_ms = []
    deadline_s = time.perf_counter() + seconds
    async with aiohttp.ClientSession(url) as session:
        for path in cycle(_PATHS):
            took_ms.append(await _ask(session, path))
            await asyncio.sleep(_OFTEN_S)
            if time.perf_counter() > deadline_s:
                break
    return took_ms


async def _ask(session: aiohttp.ClientSession, path: str) -> float:
    began_s = time.perf_counter()
    async with session.get(path) as answer:
        await answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}")
    return (time.perf_counter() - began_s) * 1000
