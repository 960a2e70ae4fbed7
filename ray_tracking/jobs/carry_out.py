"""Carrying out a replay to its end, whoever does it: a Ray job, or the command line."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.stores.failures import StoreRefused, StoreUnavailable
from ray_tracking.stores.recompute import Recompute

_BACKOFF = Backoff(first_s=0.2, longest_s=5.0)
#: After each step it rests for this part of the time that the step took: new events come first.
_REST = 0.5

log = structlog.get_logger("ray_tracking.replay")

T = TypeVar("T")


async def carry_out(
    recompute: Recompute, campaign_id: str, tell: Callable[[], Awaitable[None]] | None = None
) -> None:
    """
    Return when the replay has succeeded.

    While Postgres is away it waits. What is left of replays that were given up is dropped
    before and afterwards.

    Args:
        recompute: Of the replay.
        campaign_id: Of which campaign.
        tell: Called after each step.

    Raises:
        ReplayEnded: It was stopped, or has ended before.
        Fenced: Another process works on it.
    """
    await _persist(recompute.begin)
    while True:
        while await _step(recompute):
            if tell is not None:
                await tell()
        if await _persist(recompute.swap):
            break
    if tell is not None:
        await tell()
    await _persist(lambda: recompute.clear(campaign_id))


async def _step(recompute: Recompute) -> bool:
    began_s = time.monotonic()
    more = await _persist(recompute.step)
    await asyncio.sleep(_REST * (time.monotonic() - began_s))
    return more


async def _persist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: what was not answered has happened, or can be repeated."""
    attempt = 0
    while True:
        try:
            return await ask()
        except (StoreUnavailable, StoreRefused) as error:
            log.warning("replay waits", reason=str(error))
            await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
            attempt += 1
