"""
Loads of single events, batches, pixels and clicks: what to send, and what was answered.

Each is sent by a process of its own (:mod:`benchmarks.generator`). Closed loop, without a
rate: a connection sends its next request when it has its answer, so the latencies are those
of a service that is asked as fast as it answers. Open loop, with a rate: requests are due at
fixed moments, and an answer's time counts from when its request was due, also where it had
to wait for a connection or for the generator.

For loads that go on while something happens see :mod:`benchmarks.steady`.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Order:
    """
    What to send.

    Args:
        port: On 127.0.0.1.
        path: The route; ``/pixel`` for hits.
        batch: Events in a request; None for one event, not in a list.
        connections: How many are asked at once.
        seconds: Nothing is due or sent after so long.
        first: Number of the first event.
        events: At most so many; their requests are made before the clock starts.
        rate: Requests per second; None for as many as are answered.
        click_every: Each so-many-th hit is a click.
        repeat_every: Each so-many-th event was sent before.
        secret: The service's encryption key, which makes its hits.
    """

    port: int
    path: str
    batch: int | None
    connections: int
    seconds: float
    first: int
    events: int | None = None
    rate: float | None = None
    click_every: int | None = None
    repeat_every: int | None = None
    secret: str = ""


@dataclass
class Result:
    """What was answered. ``seconds`` is from the first byte sent to the last answer."""

    seconds: float = 0.0
    #: That were due, or sent in a closed loop.
    offered: int = 0
    #: That were answered.
    requests: int = 0
    #: Requests all of whose events are durable: the answer says so.
    acknowledged: int = 0
    #: That were answered with an error, or not at all.
    refused: int = 0
    #: That the answers to batches speak of.
    duplicates: int = 0
    next_number: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    #: Of acknowledged requests.
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    #: What the generator took, of one processor.
    generator_percent: float = 0.0


async def send(order: Order) -> Result:
    """Have an order carried out by a process of its own."""
    (result,) = await send_all([order])
    return result


async def send_all(orders: Sequence[Order]) -> list[Result]:
    """Several at once, each by a process of its own; they begin when all have prepared."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.generator", json.dumps(asdict(order))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for order in orders
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            await process.stdout.readline()
        said = await asyncio.gather(*[process.communicate(b"\n") for process in processes])
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if any(process.returncode for process in processes):
        raise SystemExit("the load generator failed")
    return [_result(json.loads(out)) for out, _ in said]


def _result(found: dict[str, Any]) -> Result:
    statuses = {int(status): count for status, count in found.pop("statuses").items()}
    return Result(**found, statuses=statuses)
