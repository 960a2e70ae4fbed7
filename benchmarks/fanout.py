"""
How many deliveries a core of a replica makes, and what a connection that only waits takes.

The hub and the listener of a replica in a process of their own, as they are; only the
broadcaster is not there, in whose place ready frames are handed over. The figure is deliveries
for each second of the process's own processor time, with what the kernel does for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import msgspec
import orjson
import uvloop

from benchmarks import listeners
from benchmarks.lab import Figure
from benchmarks.plan import Plan
from benchmarks.service import free_port
from ray_tracking.clock import steady_clock
from ray_tracking.http.access import Access
from ray_tracking.http.listener import Listener
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.live.websocket import WebSocketLive
from ray_tracking.memory import rss_bytes
from ray_tracking.pipeline.broadcast import Frame, Poll, Polled, To, Watch, Watched, Watching
from ray_tracking.pipeline.figures import COUNTED, UNIQUES, Figures

_CLIENTS, _IDLE = 200, 2000
_TICK_S = 0.010
#: In a tick each client gets so many.
_FRAMES = 1
_CAMPAIGN = "bench-campaign-000"

FIGURES = (
    Figure("deliveries for a second of a core", "/s"),
    Figure("deliveries made", "/s"),
    Figure("a connection that waits", "KiB"),
)


async def run(plan: Plan) -> list[dict[str, float]]:
    """Measure once."""
    busy = await _measure(_CLIENTS, plan.seconds)
    idle = await _measure(_IDLE, 0)
    return [
        {
            "deliveries for a second of a core": busy["deliveries"] / busy["cpu_s"],
            "deliveries made": busy["deliveries"] / busy["seconds"],
            "a connection that waits": idle["bytes"] / _IDLE / 1024,
        }
    ]


async def _measure(clients: int, seconds: float) -> dict[str, float]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, json.dumps([port, seconds])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    crowd = listeners.Order(port, clients, 1, campaign_step=0)
    async with listeners.listening(crowd) as there:
        await there.all_subscribed()
        process.stdin.write(b"go\n")
        found: dict[str, float] = json.loads(await process.stdout.readline())
        await there.finish()
    process.kill()
    await process.wait()
    return found


class _Source:
    """In the place of the broadcaster: frames of one campaign, a few in each tick."""

    def __init__(self) -> None:
        self.offset = 1
        self.until_s = 0.0
        self.going = asyncio.Event()

    async def poll(self, blob: bytes) -> bytes:
        asked = msgspec.msgpack.decode(blob, type=Poll)
        if asked.epoch != 1:
            return msgspec.msgpack.encode(Polled(1, self.offset, []))
        await self.going.wait()
        await asyncio.sleep(_TICK_S)
        if time.perf_counter() > self.until_s:
            await asyncio.Event().wait()
        frames = []
        for _ in range(_FRAMES):
            self.offset += 1
            figures = self._figures()
            data = {"campaignId": _CAMPAIGN, "counters": figures.counters(),
                    "lastEvent": None, "version": self.offset}  # fmt: skip
            frames.append(
                Frame(self.offset, _CAMPAIGN, "campaign_progress", int(To.ALL),
                      orjson.dumps(data), figures, figures)
            )  # fmt: skip
        return msgspec.msgpack.encode(Polled(1, asked.offset, frames))

    async def watch(self, blob: bytes) -> bytes:
        asked = msgspec.msgpack.decode(blob, type=Watch)
        watched = {name: Watched(self._figures(), 0, 0) for name in asked.campaigns}
        return msgspec.msgpack.encode(Watching(1, self.offset, watched))

    def _figures(self) -> Figures:
        return Figures([self.offset] * len(COUNTED), [0] * len(UNIQUES), None, None, 0)


async def _serve(port: int, seconds: float) -> None:
    source = _Source()
    clock = steady_clock()
    hub = Hub(source.poll, source.watch, clock)
    await hub.start()
    live: Any = WebSocketLive(hub, Access([]), (), clock)
    await Listener(live, "127.0.0.1", port).start()
    empty_bytes = rss_bytes()
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    before, cpu_s, began_s = hub.deliveries, time.process_time(), time.perf_counter()
    full_bytes = rss_bytes()
    source.until_s = began_s + seconds
    source.going.set()
    await asyncio.sleep(seconds)
    found = {
        "deliveries": hub.deliveries - before,
        "cpu_s": time.process_time() - cpu_s,
        "seconds": time.perf_counter() - began_s,
        "bytes": full_bytes - empty_bytes,
    }
    print(json.dumps(found), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(*json.loads(sys.argv[1])))
