"""Spans of traced requests, as a collector of OpenTelemetry's gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.collector import Caller, Collector
from tests.support.events import item
from tests.support.service import Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

SERVER, CONSUMER = 2, 5


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    collector = Collector()
    yield collector
    collector.close()


async def traced(stack: Stack, collector: Collector) -> Service:
    """The whole path of an event, all of whose parts know the collector."""
    await stack.shard()
    await stack.writer(otlp_endpoint=collector.url)
    return await stack.service(otlp_endpoint=collector.url)


async def test_a_traced_event_has_a_span_for_its_request_and_one_for_its_row(
    stack: Stack, collector: Collector
) -> None:
    service = await traced(stack, collector)
    caller, other = Caller(), Caller(sampled=False)
    for headers in (other.headers, {}, caller.headers):
        assert (await service.post("/events", item(), headers=headers)).status == 202

    spans = await eventually(lambda: len(caller.of(collector)) == 2 and caller.of(collector))
    request, row = spans["POST /events"], spans["store EMAIL_OPEN"]
    assert {request.parent_id, row.parent_id} == {caller.span_id}
    assert (request.kind, row.kind) == (SERVER, CONSUMER)
    assert request.part == "ingress"
    assert row.part == "writer-0"
    assert not request.failed
    assert request.attributes["http.response.status_code"] == "202"
    assert 0 < request.took_ns < 60e9
    assert 0 <= row.took_ns < 60e9
    assert not other.of(collector)
    assert len(collector.spans) == 2


async def test_each_event_of_a_traced_batch_has_a_span(stack: Stack, collector: Collector) -> None:
    service = await traced(stack, collector)
    caller = Caller()
    items = [item(eventId=f"traced-{n}") for n in range(3)] + [{"eventType": "NONE"}]
    answer = await service.post("/events/batch", items, headers=caller.headers)
    assert answer.status == 207

    await eventually(lambda: len(collector.spans) == 4)
    assert sorted(span.name for span in collector.spans) == [
        "POST /events/batch",
        *["store EMAIL_OPEN"] * 3,
    ]


_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = '22023'; END $$
"""
_REFUSE_A_LEAD = """
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.lead_id = 'refused')
EXECUTE FUNCTION refuse()
"""


async def test_the_span_of_a_dead_letter_says_so(stack: Stack, collector: Collector) -> None:
    service = await traced(stack, collector)
    for statement in (_REFUSE, _REFUSE_A_LEAD):
        await stack.sql(statement)
    caller = Caller()
    items = [item(leadId=lead) for lead in ("taken", "refused", "taken as well")]
    answer = await service.post("/events/batch", items, headers=caller.headers)
    assert answer.status == 200

    await eventually(lambda: len(collector.spans) == 4)
    stored = [span for span in collector.spans if span.name == "store EMAIL_OPEN"]
    errors = [(span.failed, span.attributes.get("error.type")) for span in stored]
    assert sorted(errors, key=str) == [(False, None), (False, None), (True, "22023")]


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("POST", "/events", "POST /events", 415),
        ("GET", "/events", "GET /events", 405),
        ("GET", "/campaigns/somebody/stats", "GET /campaigns", 200),
        ("GET", "/none/somebody", "GET /none", 404),
    ],
)
async def test_a_request_without_an_event_has_one_too(
    stack: Stack, collector: Collector, method: str, path: str, name: str, status: int
) -> None:
    """It names the route, and nobody's id."""
    service = await traced(stack, collector)
    caller = Caller()
    answer = await service.call(method, path, headers=caller.headers)
    assert answer.status == status

    spans = await eventually(lambda: caller.of(collector))
    assert spans[name].attributes["http.response.status_code"] == str(status)
    assert "somebody" not in str(collector.spans)


async def test_a_503_is_a_failure(stack: Stack, collector: Collector) -> None:
    service = await traced(stack, collector)
    stack.unreachable.add(0)
    caller = Caller()
    assert (await service.post("/events", item(), headers=caller.headers)).status == 503

    spans = await eventually(lambda: caller.of(collector))
    assert spans["POST /events"].failed


async def test_a_collector_that_is_away_costs_nobody_an_event(
    stack: Stack, collector: Collector
) -> None:
    service = await traced(stack, collector)
    collector.close()
    for number in range(20):
        one = item(eventId=f"away-{number}")
        assert (await service.post("/events", one, headers=Caller().headers)).status == 202

    async def stored() -> bool:
        rows = await stack.sql("SELECT 1 FROM events WHERE client_event_id LIKE 'away-%'")
        return len(rows) == 20

    await eventually(stored)
