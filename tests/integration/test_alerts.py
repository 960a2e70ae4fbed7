"""
Each alert fires when what it warns of really happens, and not before.

The parts are real and so is the fault. What is scraped of them twice goes on so for minutes in
Prometheus's own evaluation of ``monitoring/alerts.yml``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ray_tracking.pipeline import health
from ray_tracking.pipeline.window import WindowPolicy
from ray_tracking.stores.gaps import accept_gap, find_gap
from ray_tracking.stores.log import EventLog
from tests.support.events import item
from tests.support.promtool import MONITORING, promtool
from tests.support.service import Service
from tests.support.stack import NORMAL, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

ALERTS = yaml.safe_load((MONITORING / "alerts.yml").read_text())
_EVERY_S = 15
_FOR = 60  # scrapes: a quarter of an hour

#: Makes a service that is well, has its fault happen when it is asked the second time, and
#: something more of it when it is asked the third time.
Fault = Callable[[Stack, Path], AsyncIterator[Service]]
_Samples = dict[str, tuple[float, float]]


async def send(service: Service, number: int = 1, **data: Any) -> list[int]:
    """The statuses of so many events."""
    return [(await service.post("/events", item(**data))).status for _ in range(number)]


async def stored(stack: Stack, number: int) -> None:
    await eventually(lambda: stack.has_rows(number))


async def locked_table(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """A lock that nobody lets go of: Postgres answers, and takes no row."""
    await stack.shard()
    await stack.writer()
    service = await stack.service()
    await send(service)
    await stored(stack, 1)
    yield service
    somebody = await asyncpg.connect(stack.database_url)
    try:
        await somebody.execute("BEGIN")
        await somebody.execute(f'LOCK TABLE "{stack.schema}".log_positions')
        a_minute_ago = stack.event(received_ms=time.time_ns() // 1_000_000 - 60_000)
        await stack.owners["shard-0"].submit(a_minute_ago)
        await send(service, 9)
        await eventually(lambda: _stalled(stack))
        yield service
        yield service
    finally:
        await somebody.close()


async def _stalled(stack: Stack) -> bool:
    """The health page says that the writer stands still."""
    components = (await stack.look())["health"]["components"]
    return bool(components["writers"]["status"] == "unhealthy")


async def emptied_log(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Redis has lost what it had acknowledged, before it was a row."""
    await stack.shard()
    await stack.look()
    await asyncio.sleep(0.01)
    service = await stack.service()
    scribe = await stack.writer()
    await send(service, 3)
    await stored(stack, 3)
    yield service
    await scribe.kill()
    assert await send(service, 5) == [202] * 5
    await stack.empty_log()
    await stack.shard()
    yield service
    yield service


async def accepted_gap(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """An operator goes on without an entry that the log has lost."""
    await stack.shard()
    service = await stack.service()
    campaign = stack.campaign_in(0)
    await send(service, 3, campaignId=campaign)
    _, missing, _ = await stack.batches(0)
    yield service
    await stack.redis.xdel(stack.stream(0), str(missing.id))
    await stack.writer()
    yield service
    await eventually(lambda: stack.redis.hget(f"{stack.prefix}gaps", "0"))
    await stored(stack, 1)
    log = EventLog(stack.redis_url, stack.prefix)
    gap = await find_gap(log, 0, NORMAL, await stack.stored(0))
    assert gap is not None
    await accept_gap(stack.database_url, stack.schema, log, gap)
    await log.close()
    await stored(stack, 2)
    yield service


async def poison(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Postgres refuses an event."""
    await stack.shard()
    await stack.writer()
    await stack.sql("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison')")
    service = await stack.service()
    yield service
    await send(service, leadId="poison")
    await eventually(lambda: _has_letters(stack))
    yield service
    yield service


async def _has_letters(stack: Stack) -> bool:
    return bool(await stack.sql("SELECT FROM dead_letters"))


async def no_room_for_hits(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """The shards hang, and so many hits wait for them that there is no room for more."""
    await stack.shard()
    service = await stack.service(
        max_buffer_size=4, backpressure_thresholds={"warning": 1, "critical": 2, "emergency": 3}
    )
    mail = {"campaignId": "c1", "leadId": "ada", "emailId": "m1", "links": []}
    pixel = (await service.post("/tracking-links", mail)).json["pixelUrl"].rpartition("/")[2]
    yield service
    stack.answering.clear()
    for _ in range(2):
        for _ in range(5):
            await service.get(f"/pixel/{pixel}")
        yield service


async def full_log(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """The log is as large as it may be, and no writer makes room in it."""
    await stack.shard(max_log_bytes=100_000)
    service = await stack.service()
    await send(service)
    yield service

    async def full() -> bool:
        return 503 in await send(service, 20, customData={"text": "x" * 10_000})

    await eventually(full)
    for _ in range(2):
        await send(service, 5)
        yield service


async def redis_away(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Events are spooled."""
    proxy, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    await stack.broadcast(redis_url=url)
    service = await stack.service(spool=tmp_path / "spool", redis_url=url)
    await send(service)
    yield service
    proxy.refuse()
    proxy.cut()

    async def open_and_deaf() -> bool:
        await send(service)
        components = (await stack.look())["health"]["components"]
        wrong = ("circuitBreakers", "websocket")
        return all(components[name]["status"] == "degraded" for name in wrong)

    await eventually(open_and_deaf)
    yield service
    yield service
    await proxy.accept()


async def slow_log(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Each append takes a third of a second."""
    proxy, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    service = await stack.service()
    await send(service)
    yield service
    proxy.latency_s = 0.35
    for _ in range(2):
        await send(service, 2)
        yield service


async def dead_writer(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Its process has ended and nobody begins it anew."""
    await stack.shard()
    await stack.broadcast()
    scribe = await stack.writer()
    service = await stack.service()
    yield service
    await scribe.kill()
    yield service
    yield service


async def small_window(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """There is room for fewer ids than come within the window."""
    await stack.shard(window=WindowPolicy(2000, 2000, max_ids=8))
    service = await stack.service()
    yield service
    for _ in range(2):
        before = await _evicted(stack)
        while await _evicted(stack) == before:
            await send(service, 10)
        yield service


async def _evicted(stack: Stack) -> int:
    return int((await stack.look())["counted"]["dedup_evicted_early"])


async def ballast(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """The process grows, and with it every part, as they all are in it."""
    await stack.shard()
    await stack.writer()
    service = await stack.service()
    yield service
    heavy = bytearray(600 * 1024 * 1024)
    heavy[::4096] = b"x" * len(range(0, len(heavy), 4096))
    yield service
    yield service


async def gone(stack: Stack, tmp_path: Path) -> AsyncIterator[Service]:
    """Nobody listens."""
    await stack.shard()
    service = await stack.service()
    yield service
    await service.listener.stop()
    yield service
    yield service


FAULTS: dict[Fault, set[str]] = {
    locked_table: {
        "TrackingNoProgress", "TrackingUnhealthy", "TrackingBacklogOld", "TrackingBackpressure",
    },
    emptied_log: {"TrackingBooksOff"},
    accepted_gap: {"TrackingEventsGivenUp"},
    poison: {"TrackingDeadLetters"},
    no_room_for_hits: {"TrackingHitsLost"},
    full_log: {
        "TrackingLogFilling", "TrackingErrorBudgetBurn", "TrackingErrorBudgetBurnSlow",
    },
    redis_away: {"TrackingSpooling", "TrackingBreakerOpen", "TrackingLiveDown"},
    slow_log: {"TrackingSlow"},
    dead_writer: {"TrackingPartDown"},
    small_window: {"TrackingIdsEvictedEarly"},
    ballast: {"TrackingMemory"},
    gone: {"TrackingAbsent"},
}  # fmt: skip


async def test_there_is_a_fault_for_every_alert() -> None:
    names = {rule.get("alert") for group in ALERTS["groups"] for rule in group["rules"]} - {None}
    assert set().union(*FAULTS.values()) == names


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_an_alert_fires_when_its_fault_happens(
    fault: Fault, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STALLED_AFTER_MS", 300)
    course = fault(stack, tmp_path)
    well = await scrape(await anext(course))
    at_s = time.monotonic()
    once = await scrape(await anext(course))
    await asyncio.sleep(0.05)  # what grows has grown
    took_s = time.monotonic() - at_s
    twice = await scrape(await anext(course))
    took_s = time.monotonic() - at_s - took_s / 2
    await course.aclose()
    names = sorted(FAULTS[fault])
    tests = [
        case("well", {series: (value, 0.0) for series, value in well.items()}, names, 0),
        case("faulty", going_on(once, twice, took_s), names, 1),
    ]
    file = tmp_path / "alerts_test.yml"
    document = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": f"{_EVERY_S}s",
        "tests": tests,
    }
    file.write_text(yaml.safe_dump(document))
    promtool("test", "rules", file)


async def scrape(service: Service) -> dict[str, float]:
    """Each series of /metrics, as Prometheus writes it; nothing where nobody answers."""
    try:
        text = (await service.get("/metrics")).body.decode()
    except aiohttp.ClientError:
        return {}
    return {
        sample.name + "{" + ",".join(f'{key}="{its}"' for key, its in sample.labels.items()) + "}":
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def going_on(once: dict[str, float], twice: dict[str, float], took_s: float) -> _Samples:
    """Each series from where it was, growing as it grew."""
    return {
        series: (value, (value - once.get(series, value)) / took_s)
        for series, value in twice.items()
    }


def case(name: str, samples: _Samples, alerts: list[str], fires: int) -> dict[str, Any]:
    """A test for promtool: these alerts fire, or do not, when it goes on so."""
    step = {series: slope * _EVERY_S for series, (_, slope) in samples.items()}
    return {
        "name": name,
        "interval": f"{_EVERY_S}s",
        "input_series": [
            {"series": series, "values": f"{value:f}{step[series]:+f}x{_FOR}"}
            for series, (value, _) in samples.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'max(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{_EVERY_S * (_FOR - 1)}s",
                "exp_samples": [{"value": fires}],
            }
            for alert in alerts
        ],
    }
