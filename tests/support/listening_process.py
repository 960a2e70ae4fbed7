"""An attached process that prints what it hears, a line of JSON each: ``[event, *payload]``."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from functools import partial
from typing import Any

from ray_tracking import TrackingEventProcessor
from ray_tracking.processor import EVENTS

#: Handlers run in threads, and a line and its end are two writes.
_SPEAKING = threading.Lock()


def say(event: str, *payload: Any) -> None:
    """Print one event."""
    plain = [each.to_dict() if hasattr(each, "to_dict") else each for each in payload]
    with _SPEAKING:
        print(json.dumps([event, *plain]), flush=True)


def fail(*payload: Any) -> None:
    """A handler of somebody else, in the same process."""
    raise RuntimeError("as told")


async def main() -> None:
    """Listen until nobody needs it: standard input ends."""
    processor = TrackingEventProcessor()
    for event in EVENTS:
        processor.on(event, fail)
        processor.on(event, partial(say, event))
    await processor.initialize()
    await asyncio.to_thread(sys.stdin.read)
    await processor.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
