"""Is it alive? New events to several partitions, until they are taken; and: is all drained?"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import asyncpg

from tests.chaos.api import AGAIN_S, Api, Event
from tests.chaos.history import Sent
from tests.chaos.target import Target

_CAMPAIGNS = 8
_END_CAMPAIGNS = 32
_TIMESTAMP = "2026-11-01T09:00:00Z"
_number = itertools.count()


async def taken_after(api: Api, within_s: float) -> float | None:
    """
    How long it takes until new events of several campaigns are acknowledged.

    Returns:
        Seconds, or None when they were not within the time.
    """
    began_s = time.monotonic()
    round_number = next(_number)
    try:
        async with asyncio.timeout(within_s):
            names = [(f"probe-{n}", f"probe-{round_number}-{n}") for n in range(_CAMPAIGNS)]
            await asyncio.gather(*[_insist(api, *name) for name in names])
    except TimeoutError:
        return None
    return time.monotonic() - began_s


async def drained(api: Api, target: Target, within_s: float) -> str | None:
    """
    Wait until everything that was taken has become a row and nothing is amiss.

    Returns:
        None, or what was still amiss at the end of the time.
    """
    amiss = await settled(api, target, within_s)
    deadline_s = time.monotonic() + within_s
    while amiss is None and (trouble := _trouble(await target.health())):
        if time.monotonic() > deadline_s:
            amiss = trouble
        await asyncio.sleep(0.3)
    return amiss and f"not drained within {within_s:.0f} s: {amiss}"


async def settled(api: Api, target: Target, within_s: float) -> str | None:
    """
    Wait until what the log has taken so far is rows.

    Rows come in the order of the log, so when a last event of every stream is a row, all
    before it are.

    Returns:
        None, or what was missing at the end of the time.
    """
    round_number = next(_number)
    events = [
        (f"end-{n}", f"end-{round_number}-{n}-{priority}", priority)
        for n in range(_END_CAMPAIGNS)
        for priority in ("high", "normal")
    ]
    keys = [key for _, key, _ in events]
    missing = "the last events are not taken"
    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*[_insist(api, *event) for event in events])
            while missing := await _missing(target, keys):  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.3)
    except TimeoutError:
        return f"{missing}; {_trouble(await target.health())}"
    return None


async def _missing(target: Target, keys: list[str]) -> str:
    try:
        (there,) = await target.sql(
            "SELECT count(*) FROM events WHERE client_event_id = ANY($1)", keys
        )
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        return f"Postgres: {error!r}"
    missing = len(keys) - there[0]
    return f"{missing} of the last events are no rows" if missing else ""


def _trouble(health: dict[str, Any] | None) -> str | None:
    if health is None:
        return "no health page"
    if health["overall"] == "healthy":
        return None
    parts = {
        name: {key: value for key, value in part.items() if key != "status"}
        for name, part in health["components"].items()
        if isinstance(part, dict) and part.get("status") not in (None, "healthy")
    }
    return f"{health['overall']}: {parts}"


async def _insist(api: Api, campaign: str, key: str, priority: str = "normal") -> None:
    """As a client that does not wait as long as it is told."""
    data = {
        "eventId": key, "campaignId": campaign, "leadId": key, "emailId": "mail",
        "timestamp": _TIMESTAMP,
    }  # fmt: skip
    event = Event(Sent(key, campaign, "probe", 0, in_turn=False), "EMAIL_OPEN", data, priority)
    while await api.single(event) is not None:  # noqa: ASYNC110 - of other processes
        await asyncio.sleep(AGAIN_S / 2)
