"""
What the log can take: the same batches read, validated and appended, by one process.

No HTTP, no dedup, no rates: JSON to values, values to rows, an ``XADD`` for each partition,
and the answers awaited, each after the server's fsync. Several batches are under way at
once, so that they share fsyncs and one is validated while another is written. It uses the
product's own functions, and the service's own Valkey while that is idle.

As a program, ``python -m benchmarks.log_ceiling URL BATCHES SIZE AT_ONCE``, it is that process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import chain
from secrets import token_hex
from typing import Any

import hiredis
import uvloop

from benchmarks.bodies import Requests
from benchmarks.service import Service
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import encode_batch
from ray_tracking.pipeline.receive import JSON, parse_batch
from ray_tracking.pipeline.route import Router, Submission, event_ids
from ray_tracking.pipeline.validate import validate_item
from ray_tracking.settings import Settings
from ray_tracking.stores.embedded.paths import valkey_binary
from ray_tracking.stores.embedded.valkey import Valkey
from ray_tracking.stores.wire import Command, Wire

_ANSWER_WITHIN_S = 10.0


async def append_batches(service: Service, batches: int, size: int, at_once: int) -> float:
    """Events per second, from the bytes of a request's body to the last answer of the log."""
    url = Valkey(service.data_dir, valkey_binary()).url
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, url, str(batches), str(size), str(at_once)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit("the ceiling of the log could not be measured")
    per_s: float = json.loads(said)
    return per_s


class _Log:
    """Streams of their own, which are gone afterwards."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = f"bench:{token_hex(4)}:"
        self._router = Router(Settings().partitions, b"0" * 16)
        self._streams: set[str] = set()

    async def append(self, bodies: Iterator[bytes]) -> None:
        """Until there are no more, over a connection of its own."""
        wire = await Wire.open(self._url, _ANSWER_WITHIN_S)
        for body in bodies:
            commands = list(self._commands(body))
            await wire.send(commands)
            for _ in commands:
                if isinstance(answer := await wire.receive(), hiredis.ReplyError):
                    raise answer
        await wire.close()

    async def forget(self) -> None:
        """Delete what was appended."""
        wire = await Wire.open(self._url, _ANSWER_WITHIN_S)
        await wire.send([("DEL", *self._streams)])
        await wire.receive()
        await wire.close()

    def _commands(self, body: bytes) -> Iterator[Command]:
        items = parse_batch(body, JSON)
        now_s = time.time()
        ids = event_ids(int(now_s * 1000), os.urandom(16 * len(items)))
        parts: dict[tuple[int, int], list[Submission]] = {}
        for item, event_id in zip(items, ids, strict=True):
            routed = self._router.route(validate_item(item, now_s=now_s), event_id)
            parts.setdefault((routed.partition, routed.lane), []).append(routed)
        for (partition, lane), submissions in parts.items():
            stream = f"{self._prefix}{partition}:{LANES[lane]}"
            self._streams.add(stream)
            fields = encode_batch(submissions, total=0, appended_ms=int(now_s * 1000))
            yield ("XADD", stream, "*", *chain.from_iterable(fields.items()))


async def _measure(url: str, batches: int, size: int, at_once: int) -> float:
    requests = Requests("/", size)
    bodies = [
        requests.make(number).partition(b"\r\n\r\n")[2]
        for number in range(1, 1 + batches * size, size)
    ]
    log = _Log(url)
    await log.append(iter(bodies[:1]))  # to warm up
    left = iter(bodies)
    began_s = time.perf_counter()
    await asyncio.gather(*[log.append(left) for _ in range(at_once)])
    took_s = time.perf_counter() - began_s
    await log.forget()
    return batches * size / took_s


def _main(url: str, *numbers: str) -> Any:
    batches, size, at_once = map(int, numbers)
    print(json.dumps(uvloop.run(_measure(url, batches, size, at_once))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
