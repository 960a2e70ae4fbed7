"""
A bare call of a Ray actor, on the service's own Ray: what a hop through it costs at least.

As a program, ``python -m benchmarks.ray_calls ADDRESS AT_ONCE SECONDS``, it joins that Ray
as another driver. The actor does nothing, and as little is sent to it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from typing import Any

from benchmarks.answers import percentile
from benchmarks.processes import ray_address
from benchmarks.service import Service
from ray_tracking.settings.environment import set_ray_defaults


async def bare_calls(service: Service, at_once: int, seconds: float) -> tuple[float, float]:
    """
    Call from one process, so many at once, then one after another.

    Returns:
        Calls per second of the first, and the median of the second in milliseconds.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, ray_address(service), str(at_once), str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit("the bare Ray actor calls failed")
    per_s, p50_ms = json.loads(said.splitlines()[-1])
    return per_s, p50_ms


class _Nothing:
    async def call(self, payload: bytes) -> bytes:
        return payload


async def _call(actor: Any, at_once: int, seconds: float) -> tuple[int, float, array[float]]:
    """How many calls, in how long, and how long each took."""
    took_s = array("d")
    began_s = time.perf_counter()

    async def one_after_another() -> None:
        while (before_s := time.perf_counter()) < began_s + seconds:
            await actor.call.remote(b"")
            took_s.append(time.perf_counter() - before_s)

    await asyncio.gather(*[one_after_another() for _ in range(at_once)])
    return len(took_s), time.perf_counter() - began_s, took_s


async def _measure(actor: Any, at_once: int, seconds: float) -> tuple[float, float]:
    await _call(actor, at_once, min(1.0, seconds))  # to warm up
    calls, in_s, _ = await _call(actor, at_once, seconds)
    _, _, took_s = await _call(actor, 1, min(1.0, seconds))
    return calls / in_s, percentile(took_s, 0.50) * 1000


def _main(address: str, at_once: int, seconds: float) -> None:
    set_ray_defaults()
    import ray

    ray.init(address, namespace="bench", logging_level="ERROR", log_to_driver=False)
    actor = ray.remote(num_cpus=0)(_Nothing).options(max_concurrency=at_once).remote()
    print(json.dumps(asyncio.run(_measure(actor, at_once, seconds))), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
