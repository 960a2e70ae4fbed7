"""
A writer in a process of its own, which an event can end.

It takes the fields of its config as JSON, and ends by itself when everything that stands in
the log is stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from ray_tracking import failpoints
from ray_tracking.actors.pump import WriterConfig
from ray_tracking.actors.writer import Writer
from ray_tracking.clock import steady_clock
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.write import FlushPolicy


async def work(config: WriterConfig) -> None:
    """Store what is there."""
    writer = Writer(config, lambda reason: os._exit(1), steady_clock())
    await writer.start()
    await writer.drain()
    await writer.close()


def main() -> None:
    fields = json.loads(sys.argv[1])
    failpoints.arm(Path(fields.pop("failpoints_dir")))
    flush = FlushPolicy(**fields.pop("flush"))
    config = WriterConfig(**fields, flush=flush, rate=RatePolicy(max_events=10**6))
    asyncio.run(work(config))


if __name__ == "__main__":
    main()
