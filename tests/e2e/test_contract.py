"""
``/openapi.json`` against the running service: whatever is sent, well made or not, each route
answers with a status and a body that it has announced, and never with an error of ours.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ray_tracking.http.openapi import document
from tests.e2e.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Each that is taken begins a process.
FEW = {("/replays", "post"): 1}
EXAMPLES = 8
WITHIN_S = 10

SCHEMA = schemathesis.openapi.from_dict(document("http://127.0.0.1:8000"))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


def is_endless(operation: Any) -> bool:
    return "text/event-stream" in str(operation.definition.raw["responses"].get("200"))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.label)
def test_each_route_answers_as_it_says(
    service: Service, operation: Any, mode: GenerationMode
) -> None:
    most = FEW.get((operation.path, operation.method), EXAMPLES)

    @settings(
        max_examples=most,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        if is_endless(operation):
            asked = case.as_transport_kwargs(base_url=service.url)
            with requests.request(**asked, stream=True, timeout=WITHIN_S) as answer:
                assert str(answer.status_code) in operation.definition.raw["responses"]
            return
        answer = case.call(base_url=service.url, timeout=WITHIN_S, allow_redirects=False)
        case.validate_response(answer, checks=CHECKS)

    with suppress(Unsatisfiable):  # there is nothing that could be wrong
        holds()
