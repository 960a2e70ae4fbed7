"""``/openapi.json`` is valid, complete, and true to what the service does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import jsonschema
import pytest

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import EventType
from ray_tracking.http import openapi_examples as examples
from ray_tracking.http.app import App
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.openapi import document
from ray_tracking.http.ports import Ports
from ray_tracking.http.tracking import Tracking
from ray_tracking.pipeline import answer
from ray_tracking.pipeline.formulas import campaign_stats
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.health import overall_health
from ray_tracking.pipeline.receive import NDJSON, parse_batch
from ray_tracking.pipeline.validate import validate_item
from ray_tracking.settings import Settings

NOW_S = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
METHODS = {"get", "put", "post", "delete", "head"}
MAIL = {"campaignId": "c", "leadId": "l", "emailId": "e", "timestamp": "2026-11-23T19:00:00Z"}
DOCUMENT = document("http://127.0.0.1:8000")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def everything(value: Any) -> Iterator[dict[str, Any]]:
    """Every object anywhere in the document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from everything(item)


def look_up(pointer: str) -> Any:
    place: Any = DOCUMENT
    for part in pointer.removeprefix("#/").split("/"):
        place = place[part.replace("~1", "/").replace("~0", "~")]
    return place


def checker(schema: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    )


@pytest.fixture(scope="module")
def app() -> App:
    nothing = cast(Any, None)
    settings = Settings.load({}, env={})
    return App(Ports(settings, *[nothing] * 9, Affinity(b"tests"), nothing))


def test_it_is_openapi_3_1() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(DOCUMENT)


def test_it_is_json_and_every_schema_is_a_schema() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    found = {item["$ref"] for item in everything(DOCUMENT) if "$ref" in item}
    for pointer in found:
        assert pointer.startswith("#/"), "nothing is fetched from elsewhere"
        look_up(pointer)

    used = {pointer.rpartition("/")[2] for pointer in found if "/schemas/" in pointer}
    assert used == set(DOCUMENT["components"]["schemas"])


def test_it_has_every_route_of_the_app_and_nothing_else(app: App) -> None:
    routes: dict[str, frozenset[str]] = {path: route[1] for path, route in app._exact.items()}
    routes |= {f"{prefix}{{token}}": route[1] for prefix, route in app._prefixed}
    # Starlette answers HEAD wherever it answers GET, as everybody expects.
    for route in cast(Any, app._rest.routes):
        routes[route.path_format] = frozenset(route.methods) - {"HEAD"}

    described = {
        path: frozenset(method.upper() for method in item)
        for path, item in DOCUMENT["paths"].items()
    }
    assert described == routes


def test_every_operation_is_complete() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    tags = {tag["name"] for tag in DOCUMENT["tags"]}

    assert len(set(ids)) == len(ids)
    for path, method, operation in operations():
        assert method in METHODS
        assert operation["summary"]
        assert set(operation["tags"]) <= tags
        assert operation["responses"]
        in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        asks = {"401", "403"} <= operation["responses"].keys()
        assert asks == bool(operation["security"]), "a key is asked for, or not"


@pytest.mark.parametrize("status", ["429", "503"])
def test_who_shall_come_again_is_told_when(status: str) -> None:
    for path, _, operation in operations():
        response = operation["responses"].get(status)
        if response is None or path.startswith("/health/tracking"):
            continue
        response = look_up(response["$ref"]) if "$ref" in response else response
        assert "Retry-After" in response["headers"]


def test_the_types_are_told_apart_by_their_name() -> None:
    event = DOCUMENT["components"]["schemas"]["Event"]

    assert set(event["discriminator"]["mapping"]) == {kind.value for kind in EventType}
    for kind, pointer in event["discriminator"]["mapping"].items():
        assert look_up(pointer)["properties"]["eventType"] == {"const": kind}


@pytest.mark.parametrize("name", examples.EVENTS)
def test_example_events_are_accepted_by_schema_and_validator(name: str) -> None:
    checker("Event").validate(examples.EVENTS[name])
    event = validate_item(examples.EVENTS[name], now_s=NOW_S)

    assert event.data == examples.EVENTS[name]["eventData"]


def test_example_batches_and_links_are_accepted() -> None:
    items = parse_batch(examples.BATCH_NDJSON.encode(), NDJSON)
    for body in examples.BATCH_JSON.values():
        checker("Batch").validate(body)
        items += parse_batch(json.dumps(body).encode(), "application/json")
    for item in items:
        validate_item(item, now_s=NOW_S)
    nothing = cast(Any, None)
    settings, tokens = Settings.load({}, env={}), cast(Any, _Tokens())
    ports = Ports(settings, nothing, nothing, tokens, *[nothing] * 6, Affinity(b"tests"), nothing)

    checker("LinkRequest").validate(examples.LINK_REQUEST)
    checker("TrackingLinks").validate(Tracking(ports)._mint(examples.LINK_REQUEST, 0))


class _Tokens:
    def mint_open(self, *ids: str, minted_at_s: int) -> str:
        return "open"

    def mint_click(self, *ids: str, minted_at_s: int) -> str:
        return "click"


@pytest.mark.parametrize(
    "item",
    [
        {"eventType": "EMAIL_OPENED", "eventData": MAIL},
        {"eventType": "EMAIL_OPEN"},
        {"eventType": "EMAIL_OPEN", "eventData": MAIL, "data": MAIL},
        {"eventType": "EMAIL_OPEN", "eventData": MAIL, "priority": "high"},
        {"eventType": "EMAIL_OPEN", "eventData": MAIL, "metadata": {"priority": "urgent"}},
        {"eventType": "EMAIL_OPEN", "eventData": {**MAIL, "linkUrl": "https://example.com"}},
        {"eventType": "EMAIL_OPEN", "eventData": {**MAIL, "leadId": ""}},
        {"eventType": "EMAIL_BOUNCE", "eventData": {**MAIL, "bounceType": "medium"}},
        {"eventType": "LINK_CLICK", "eventData": MAIL},
        {"eventType": "ACCOUNT_HEALTH_UPDATE", "eventData": MAIL},
    ],
)
def test_what_the_validator_refuses_the_schema_refuses(item: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        validate_item(item, now_s=NOW_S)

    assert not checker("Event").is_valid(item)


def test_real_answers_are_as_described() -> None:
    stored = Outcome(Verdict.ACCEPTED, position=(3, 1, 1_795_459_200, 1842, 0))
    duplicate = Outcome(Verdict.DUPLICATE, first_id=bytes(16))
    limited = Outcome(Verdict.LIMITED, retry_after_s=3.2)
    wrong = InvalidEvent([("emailId", "is required")])
    batch = answer.BatchReport(60_000)
    batch.refuse(0, None, wrong)
    for index, outcome in enumerate((stored, duplicate, limited), 1):
        batch.settle(index, EventType.EMAIL_OPEN, outcome)
    refused = answer.BatchReport(60_000)
    refused.settle(0, EventType.EMAIL_OPEN, limited)
    nobody = dict.fromkeys(
        ("sent", "delivered", "opens", "unique_opens", "clicks", "unique_clicks", "replies",
         "unique_replies", "hard", "soft", "complaint", "suppression", "machine_opens",
         "machine_clicks"), 0,
    ) | {"first_event_at": None, "last_event_at": None}  # fmt: skip

    for outcome in (stored, duplicate):
        result = answer.processing_result(outcome, "id", "HYBRID", 4.1)
        checker("ProcessingResult").validate(result)
    for report in (batch, refused):
        checker("BatchResult").validate(report.answer(12.3)[1])
    checker("Invalid").validate(answer.invalid(wrong))
    checker("CampaignStats").validate(campaign_stats("c", nobody, as_of=datetime.now(UTC)))
    checker("HealthStatus").validate(overall_health(None, now_s=NOW_S))


def test_the_example_answers_are_as_described() -> None:
    for item in everything(DOCUMENT):
        if "examples" in item and "$ref" in item.get("schema", {}):
            for example in item["examples"].values():
                checker(item["schema"]["$ref"].rpartition("/")[2]).validate(example["value"])
