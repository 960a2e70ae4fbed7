"""An attached process that sends so many events, some at a time, and counts what became of them."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

from ray_tracking import EventType, TrackingEventProcessor

_AT_A_TIME = 8


async def main(campaign_id: str, count: int) -> None:
    """Say when it has begun, and at the end what came of it."""
    processor = TrackingEventProcessor(retry_for_s=60.0)
    await processor.initialize()
    numbers = iter(range(count))
    refused: list[dict[str, Any]] = []
    success = 0

    async def send() -> None:
        nonlocal success
        for number in numbers:
            data = {
                "campaign_id": campaign_id,
                "lead_id": f"lead-{number}",
                "email_id": "mail-1",
                "event_id": f"{campaign_id}-{number}",
                "timestamp": datetime.now(UTC),
            }
            result = await processor.process_event(data, EventType.EMAIL_SENT)
            success += result.success
            if not result.success:
                refused.append(result.to_dict())
            if success == count // 10:
                print("sending", flush=True)

    await asyncio.gather(*[send() for _ in range(_AT_A_TIME)])
    await processor.shutdown()
    print(json.dumps({"success": success, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
