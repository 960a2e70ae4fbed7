"""What browsers and proxies are told, and who is believed of whom."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from tests.support.events import item
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

PAGE = "https://app.example.com"
HITS = ["/pixel/x.gif", "/click/x"]
FIGURES = ["/campaigns/c/stats", "/openapi.json", "/health/tracking", "/livez", "/nowhere"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crossed(shared: Stack) -> Service:
    """A service that a page of another origin may ask."""
    return await shared.service(cors_origins=[PAGE], api_keys=["key:ingest+read"])


@pytest.mark.parametrize("path", [*HITS, *FIGURES, "/dashboard"])
async def test_no_answer_is_taken_for_something_else(service: Service, path: str) -> None:
    for way in ("", "?x=1"):  # the short way, and the other
        answer = await service.get(path + way)
        assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]  # type: ignore[attr-defined]


async def test_an_event_is_answered_so_as_well(service: Service) -> None:
    answer = await service.post("/events", item())

    assert (answer.status, answer.headers["X-Content-Type-Options"]) == (202, "nosniff")


@pytest.mark.parametrize("path", FIGURES)
async def test_figures_are_not_embedded_and_not_kept(service: Service, path: str) -> None:
    headers = (await service.get(path)).headers

    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


async def test_the_page_has_a_policy_of_its_own(service: Service) -> None:
    (policy,) = (await service.get("/dashboard")).headers.getall("Content-Security-Policy")  # type: ignore[attr-defined]

    assert "script-src 'self'" in policy or "default-src 'self'" in policy
    assert "unsafe" not in policy


async def test_a_page_that_is_listed_may_ask(crossed: Service) -> None:
    key = {"Authorization": "Bearer key"}
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
    }
    for path in ("/events", "/campaigns/c/stats"):
        preflight = await crossed.call("OPTIONS", path, headers=asked)
        assert preflight.status == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    sent = await crossed.post("/events", item(), headers=key | {"Origin": PAGE})
    assert (sent.status, sent.headers["Access-Control-Allow-Origin"]) == (202, PAGE)
    assert "Retry-After" in sent.headers["Access-Control-Expose-Headers"]
    read = await crossed.get("/campaigns/c/stats", headers=key | {"Origin": PAGE})
    assert (read.status, read.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    # Cookies are for our own page.
    assert "Access-Control-Allow-Credentials" not in read.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.com.evil", "null"])
async def test_a_page_that_is_not_listed_learns_nothing(crossed: Service, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = await crossed.call("OPTIONS", "/events", headers=asked)
    read = await crossed.get(
        "/campaigns/c/stats", headers={"Origin": origin, "Authorization": "Bearer key"}
    )

    assert preflight.status == 400
    for answer in (preflight, read):
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_without_a_list_no_page_of_another_origin_may_ask(service: Service) -> None:
    answer = await service.post("/events", item(), headers={"Origin": PAGE})

    assert answer.status == 202
    assert "Access-Control-Allow-Origin" not in answer.headers


# -- how often one client may ask ---------------------------------------------------


async def statuses(service: Service, number: int, *headers: dict[str, str]) -> list[list[int]]:
    """Of so many requests in turn from each."""
    found: list[list[int]] = [[] for _ in headers]
    for _ in range(number):
        for answers, given in zip(found, headers, strict=True):
            answers.append((await service.get("/campaigns/c/stats", headers=given)).status)
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "198.51.100.2"}),
        ({"Forwarded": "for=198.51.100.1;proto=https"}, {"Forwarded": 'for="[2001:db8::2]:99"'}),
    ],
)
async def test_who_asks_too_often_is_refused_and_others_are_not(
    shared: Stack, first: dict[str, str], second: dict[str, str]
) -> None:
    service = await shared.service(max_requests_per_client=3, trusted_proxies=["127.0.0.1"])

    [flood] = await statuses(service, 10, first)
    [other] = await statuses(service, 3, second)
    assert set(flood) == {200, 429}
    assert flood[:3] == other == [200] * 3
    answer = await service.get("/campaigns/c/stats", headers=first)
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["success"] is False

    for path in HITS:  # a mail client always gets its answer
        for _ in range(5):
            assert (await service.get(path, headers=first)).status in (200, 404)
    assert (await service.post("/events", item(), headers=first)).status == 429


async def test_only_a_proxy_that_is_trusted_says_who_its_client_is(shared: Stack) -> None:
    service = await shared.service(max_requests_per_client=3, trusted_proxies=["192.0.2.1"])
    headers: list[dict[str, Any]] = [{"X-Forwarded-For": f"198.51.100.{n}"} for n in range(8)]

    found = await statuses(service, 1, *headers)
    assert [429] in found
