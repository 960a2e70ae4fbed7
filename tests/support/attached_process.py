"""
A plain script that uses a processor wherever one can be used, and prints what came of it.

Prints one JSON object: where it was, and what the call there returned.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

import ray
from ray import serve

from ray_tracking import EventType, TrackingEventProcessor, Unreachable

NAMESPACE = "somebody else's"


async def send(campaign_id: str, lead_id: str) -> dict[str, Any]:
    """Attach, have one event stored, and go."""
    processor = TrackingEventProcessor()
    await processor.initialize()
    data = {
        "campaign_id": campaign_id,
        "lead_id": lead_id,
        "email_id": "mail-1",
        "timestamp": datetime.now(UTC),
        "event_id": f"{campaign_id}-{lead_id}",
    }
    result = await processor.process_event(data, EventType.EMAIL_OPEN)
    await processor.shutdown()
    return result.to_dict()


@ray.remote(num_cpus=0)
def in_a_task(campaign_id: str) -> dict[str, Any]:
    """In a Ray task."""
    return asyncio.run(send(campaign_id, "task"))


@ray.remote(num_cpus=0)
class InAnActor:
    """In a Ray actor."""

    async def send(self, campaign_id: str) -> dict[str, Any]:
        """With an event loop of its own."""
        return await send(campaign_id, "actor")


@serve.deployment(ray_actor_options={"num_cpus": 0})
class InADeployment:
    """In a deployment of another application on the same Serve."""

    async def __call__(self, campaign_id: str) -> dict[str, Any]:
        return await send(campaign_id, "deployment")


async def everything(campaign_id: str) -> dict[str, Any]:
    """The processor's other methods, in one process."""
    processor = TrackingEventProcessor()
    await processor.initialize()
    now = datetime.now(UTC)
    items = [
        {
            "data": {
                "campaign_id": campaign_id, "leadId": str(n), "email_id": "m", "timestamp": now,
            },
            "event_type": EventType.EMAIL_SENT,
        }
        for n in range(3)
    ]  # fmt: skip
    batch = await processor.process_event_batch([*items, {"event_type": "NONSENSE", "data": {}}])
    refused = await processor.process_event({"campaign_id": campaign_id}, "EMAIL_OPEN")
    parts = [
        await check()
        for check in (
            processor.check_database_health,
            processor.check_redis_health,
            processor.check_queue_health,
            processor.check_memory_health,
            processor.check_websocket_health,
        )
    ]
    health = await processor.perform_health_check()
    stats = await processor.get_processing_stats()
    buffered = await processor.get_total_buffered_events()
    # Accepted before the end, so answered before it.
    sending = asyncio.create_task(processor.process_event(items[0]["data"], "EMAIL_OPEN"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await processor.shutdown()
    return {
        "batch": batch.to_dict(),
        "refused": refused.to_dict(),
        "parts": {part.name: part.status for part in parts},
        "health": health.to_dict(),
        "stats": stats.to_dict(),
        "buffered": buffered,
        "answered_at_shutdown": sending.done() and sending.result().success,
    }


async def nowhere() -> str:
    """What is said where there is no Ray, at once."""
    try:
        async with asyncio.timeout(10):
            await TrackingEventProcessor(ray_address="127.0.0.1:1").initialize()
    except Unreachable as error:
        return str(error)
    return "somebody answered"


def main(campaign_id: str) -> None:
    """Everywhere, one after the other."""
    told: dict[str, Any] = {"nowhere": asyncio.run(nowhere())}
    told["script"] = asyncio.run(send(campaign_id, "script"))
    told["ray_after_it"] = ray.is_initialized()  # the processor had joined, and has left
    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    told["driver"] = asyncio.run(send(campaign_id, "driver"))
    told["still_there"] = ray.is_initialized()  # it was not the processor that had joined
    told["task"] = ray.get(in_a_task.remote(campaign_id))
    told["actor"] = ray.get(InAnActor.remote().send.remote(campaign_id))
    other = serve.run(InADeployment.bind(), name="somebody-elses", route_prefix=None)
    told["deployment"] = other.remote(campaign_id).result()
    serve.delete("somebody-elses")
    told["everything"] = asyncio.run(everything(campaign_id))
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
