"""Limits of single campaigns, and rules that change while everything works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from ray_tracking.actors.tuning import Tuning
from ray_tracking.pipeline.gather import Verdict
from ray_tracking.settings import Settings
from ray_tracking.stores.log import EventLog
from tests.support.events import item
from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


@asynccontextmanager
async def tuning_of(stack: Stack, url: str | None = None, **args: Any) -> AsyncIterator[Tuning]:
    """What the supervisor has for it."""
    base = {"partitions": stack.partitions, "database_schema": stack.schema}
    tuning = Tuning(Settings.load(base | args, env={}))
    log = EventLog(stack.redis_url, stack.prefix)
    await tuning.begin(log, url or stack.database_url)
    task = asyncio.create_task(tuning.run())
    try:
        yield tuning
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await tuning.close()
        await log.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tuning(stack: Stack) -> AsyncIterator[Tuning]:
    async with tuning_of(stack) as tuning:
        yield tuning


def batch(campaign: str, number: int) -> dict[str, Any]:
    return {"events": [item(campaignId=campaign) for _ in range(number)]}


async def in_force(stack: Stack, tuning: Tuning, applies: Callable[[], bool]) -> None:
    """Return when every shard and writer goes by what was asked for."""

    async def everywhere() -> bool:
        parts = [owner.shard for owner in stack.owners.values() if owner.died is None]
        statuses = [await part.status() for part in parts]
        statuses += [await scribe.writer.status() for scribe in stack.scribes]
        found = {status["name"]: status["control"] for status in statuses}
        return applies() and not tuning.describe(found)["pending"]

    await eventually(everywhere)


def limit_of(stack: Stack, name: str = "shard-0") -> Callable[[], bool]:
    return lambda: "spring" in stack.owners[name].shard._policy.rate.campaigns


async def put(service: Service, **limits: Any) -> Answer:
    return await service.call("PUT", "/campaigns/spring/limits", value=limits)


async def test_a_campaign_may_send_less_than_the_others(stack: Stack, tuning: Tuning) -> None:
    await stack.shard()
    await stack.writer()
    service = await stack.service()

    answer = await put(service, maxEventsPerWindow=5)
    assert answer.status == 200
    assert answer.json | {"updatedAt": None} == {
        "campaignId": "spring",
        "maxEventsPerWindow": 5,
        "burstCapacity": 500,
        "rateLimitWindowMs": 60_000,
        "default": {"maxEventsPerWindow": 10_000, "burstCapacity": 500},
        "updatedAt": None,
    }
    assert (await service.get("/campaigns/spring/limits")).json == answer.json
    await in_force(stack, tuning, limit_of(stack))

    result = (await service.post("/events/batch", batch("spring", 8))).json
    assert (result["processed"], result["rateLimited"]) == (5, 3)
    other = (await service.post("/events/batch", batch("autumn", 8))).json
    assert other["processed"] == 8

    again = await service.call("DELETE", "/campaigns/spring/limits")
    assert (again.status, again.json["maxEventsPerWindow"]) == (200, 10_000)
    await in_force(stack, tuning, lambda: not limit_of(stack)())
    more = (await service.post("/events/batch", batch("spring", 8))).json
    assert more["processed"] == 8


async def test_a_campaign_may_burst_more_than_the_others(stack: Stack) -> None:
    async with tuning_of(stack, burst_capacity=2) as tuning:
        await stack.shard()
        service = await stack.service(burst_capacity=2)
        assert (await put(service, burstCapacity=50)).json["maxEventsPerWindow"] == 10_000
        await in_force(stack, tuning, limit_of(stack))

        for campaign, wanted in (("spring", [202] * 6), ("autumn", [202, 202, 429])):
            got = [
                (await service.post("/events", item(campaignId=campaign))).status for _ in wanted
            ]
            assert got == wanted


async def test_a_successor_goes_by_the_limits_from_its_first_event(stack: Stack) -> None:
    """Also while Postgres, where they are kept, is away: they stand beside the log."""
    proxy, url = await stack.postgres_proxy()
    async with tuning_of(stack) as tuning:
        await stack.shard()
        service = await stack.service()
        await put(service, maxEventsPerWindow=5)
        await in_force(stack, tuning, limit_of(stack))
    proxy.refuse()
    await stack.owners["shard-0"].kill()

    async with tuning_of(stack, url):
        owner = await stack.shard(database_url=url)
        outcomes = await owner.submit(*[stack.event(campaignId="spring") for _ in range(8)])

    assert [o.verdict for o in outcomes] == [Verdict.ACCEPTED] * 5 + [Verdict.LIMITED] * 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "maxEventsPerWindow"),
        ({"maxEventsPerWindow": None}, "maxEventsPerWindow"),
        ({"maxEventsPerWindow": 0}, "maxEventsPerWindow"),
        ({"maxEventsPerWindow": "5"}, "maxEventsPerWindow"),
        ({"maxEventsPerWindow": 5, "burstCapacity": -1}, "burstCapacity"),
        ({"maxEventsPerWindow": 2_000_000_000}, "maxEventsPerWindow"),
        ({"maxEvents": 5}, "maxEvents"),
    ],
)
async def test_impossible_limits_are_refused(
    service: Service, body: dict[str, Any], field: str
) -> None:
    answer = await put(service, **body)

    assert answer.status == 422
    assert field in [detail["field"] for detail in answer.json["details"]]
    assert (await service.get("/campaigns/spring/limits")).json["updatedAt"] is None


@pytest.mark.parametrize("campaign", ["x" * 129, "%01", "a%00b", "%1Faccount"])
async def test_what_no_event_can_name_has_no_limits(service: Service, campaign: str) -> None:
    path, value = f"/campaigns/{campaign}/limits", {"burstCapacity": 5}

    assert (await service.call("PUT", path, value=value)).status == 422


@pytest.mark.parametrize("campaign", ["a%C2%A0b", "a%E2%80%A8b"])
async def test_what_an_event_can_name_has_limits(service: Service, campaign: str) -> None:
    """A space that does not break and a separator of lines are no control characters."""
    path, value = f"/campaigns/{campaign}/limits", {"burstCapacity": 5}

    assert (await service.call("PUT", path, value=value)).status == 200
    assert (await service.call("DELETE", path)).status == 200


async def test_only_admins_set_limits_and_readers_see_them(shared: Stack) -> None:
    service = await shared.service(api_keys=["reads:read", "rules:admin"])
    path, value = "/campaigns/c/limits", {"burstCapacity": 5}
    reader, admin = ({"Authorization": f"Bearer {key}"} for key in ("reads", "rules"))

    assert (await service.get(path, headers=reader)).status == 200
    assert (await service.call("PUT", path, value=value)).status == 401
    assert (await service.call("PUT", path, value=value, headers=reader)).status == 403
    assert (await service.call("DELETE", path, headers=reader)).status == 403
    assert (await service.call("PUT", path, value=value, headers=admin)).status == 200
    assert (await service.call("DELETE", path, headers=admin)).status == 200


# -- settings ----------------------------------------------------------------------


async def test_a_change_of_settings_reaches_shards_and_writers(
    stack: Stack, tuning: Tuning
) -> None:
    owner = await stack.shard()
    scribe = await stack.writer()
    assert tuning.change(
        {
            "max_events_per_window": 3,
            "batch_processing_interval_ms": 7,
            "rate_limit_window_ms": 9000,
        }
    )
    await in_force(stack, tuning, lambda: owner.shard._policy.rate.max_events == 3)

    outcomes = await owner.submit(*[stack.event() for _ in range(4)])
    assert [o.verdict for o in outcomes] == [Verdict.ACCEPTED] * 3 + [Verdict.LIMITED]
    assert outcomes[3].retry_after_s <= 9.1
    pumps = scribe.writer._pumps
    await eventually(lambda: {pump._asked_ms for pump in pumps} == {0, 7})

    late = await stack.shard("shard-1", partitions=[0])
    assert late.shard._policy.rate.max_events == 3
    assert [(c["name"], c["old"], c["new"]) for c in tuning.describe({})["changes"]] == [
        ("batch_processing_interval_ms", 100, 7),
        ("max_events_per_window", 10_000, 3),
        ("rate_limit_window_ms", 60_000, 9000),
    ]


async def test_where_one_value_is_impossible_nothing_changes(stack: Stack, tuning: Tuning) -> None:
    owner = await stack.shard()
    assert tuning.change({"burst_capacity": 7})
    await in_force(stack, tuning, lambda: owner.shard._policy.rate.burst == 7)

    assert not tuning.change({"max_events_per_window": 3, "burst_capacity": 0})

    assert tuning.settings.max_events_per_window == 10_000
    assert "burst_capacity: 0" in tuning.describe({})["rejected"]["error"]
    assert tuning.change({})
    assert tuning.describe({})["rejected"] is None
    await in_force(stack, tuning, lambda: owner.shard._policy.rate.burst == 500)


async def test_a_longer_dedup_window_holds_from_then_on(stack: Stack) -> None:
    async with tuning_of(stack, deduplication_window_ms=100) as tuning:
        owner = await stack.shard()
        await in_force(stack, tuning, lambda: owner.shard._policy.window.dedup_window_ms == 100)
        assert tuning.change({"deduplication_window_ms": 60_000})
        await in_force(stack, tuning, lambda: owner.shard._policy.window.dedup_window_ms == 60_000)
        event = item(eventId="e1")["eventData"]
        (first,) = await owner.submit(stack.event(**event))
        await asyncio.sleep(0.3)  # longer than the window was
        (second,) = await owner.submit(stack.event(**event))

    assert (first.verdict, second.verdict) == (Verdict.ACCEPTED, Verdict.DUPLICATE)


async def test_who_came_last_says_what_is_in_force(stack: Stack) -> None:
    """As when a redeployment puts a supervisor in the place of another that still works."""
    async with tuning_of(stack, burst_capacity=7) as old:
        owner = await stack.shard()
        async with tuning_of(stack, burst_capacity=8) as new:
            await in_force(stack, new, lambda: owner.shard._policy.rate.burst == 8)
            old.change({"burst_capacity": 9})
            new.change({"burst_capacity": 10})
            await in_force(stack, new, lambda: owner.shard._policy.rate.burst == 10)


async def test_a_log_that_was_emptied_says_again_what_is_in_force(
    stack: Stack, tuning: Tuning
) -> None:
    tuning.change({"burst_capacity": 7})
    await eventually(lambda: stack.redis.hexists(f"{stack.prefix}control", "control"))
    await stack.empty_log()

    await eventually(lambda: stack.redis.hexists(f"{stack.prefix}control", "control"))
    owner = await stack.shard()
    assert owner.shard._policy.rate.burst == 7
