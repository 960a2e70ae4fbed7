"""Ending loops that never end by themselves."""

from __future__ import annotations

import asyncio


def wanted() -> bool:
    """
    Whether nobody has asked the current task to end.

    A loop that never ends asks on each turn, because one cancellation may have been
    swallowed: before Python 3.12 ``asyncio.wait_for``, and redis-py uses it, returns an
    answer that has just come instead.
    """
    task = asyncio.current_task()
    return task is None or not task.cancelling()
