"""Who may do what: keys, scopes, and what stays open."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from tests.support.events import item
from tests.support.service import Answer, Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

KEYS = {
    "ingest": "key-that-sends",
    "read": "key-that-reads",
    "admin": "key-that-rules",
    "both": "key:with-colons:for-two",
}
SCOPES = ["key-that-sends:ingest", "key-that-reads:read", "key-that-rules:admin"]
LINKS = {"campaignId": "c", "leadId": "l", "emailId": "e", "links": []}

#: Every route that wants a scope: method, path, body, the scope, the status of success.
GUARDED = [
    ("POST", "/events", item(), "ingest", 202),
    ("POST", "/webhook/tracking", item(), "ingest", 202),
    ("POST", "/events/batch", [item()], "ingest", 200),
    ("POST", "/tracking-links", LINKS, "ingest", 201),
    ("GET", "/campaigns/c/stats", None, "read", 200),
    ("GET", "/campaigns/c/events", None, "read", 200),
    ("GET", "/health/tracking", None, "read", 200),
    ("GET", "/openapi.json", None, "read", 200),
    ("GET", "/asyncapi.json", None, "read", 200),
    ("GET", "/dead-letters", None, "admin", 200),
    ("POST", "/dead-letters/redrive", {}, "admin", 202),
]
OPEN = [
    ("GET", "/livez", 200),
    ("GET", "/readyz", 200),
    ("GET", "/-/healthz", 200),
    ("GET", "/pixel/x.gif", 200),
    ("GET", "/click/x", 404),
    ("GET", "/nowhere", 404),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(shared: Stack) -> Service:
    """A service with keys."""
    return await shared.service(api_keys=[*SCOPES, f"{KEYS['both']}:ingest+read"])


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"Authorization": f"Bearer {key}"}


def keeps_quiet(answer: Answer) -> bool:
    """Does it show no key?"""
    said = answer.body + repr(answer.headers).encode()
    return not any(key.encode() in said for key in KEYS.values())


@pytest.mark.parametrize(("method", "path", "body", "scope", "status"), GUARDED)
async def test_a_route_opens_to_its_scope_and_to_no_other(
    guarded: Service, method: str, path: str, body: Any, scope: str, status: int
) -> None:
    for name in ("ingest", "read", "admin"):
        answer = await guarded.call(method, path, value=body, headers=bearer(KEYS[name]))

        assert keeps_quiet(answer)
        if name == scope:
            assert answer.status in (status, 200)
        else:
            assert answer.status == 403
            assert answer.json["success"] is False
            assert scope in answer.json["error"]


@pytest.mark.parametrize(("method", "path", "body", "scope", "status"), GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer  "},
        {"Authorization": KEYS["ingest"]},
        {"Authorization": f"Basic {KEYS['ingest']}"},
        bearer("no-such-key"),
        bearer(KEYS["ingest"][:-1]),
        bearer(KEYS["ingest"] + "x"),
        bearer(KEYS["ingest"].upper()),
        bearer("key-that-sends:ingest"),
        bearer("\u00e9"),
        {"X-Api-Key": KEYS["ingest"]},
    ],
)
async def test_without_a_known_key_the_answer_is_401_and_says_what_to_send(
    guarded: Service,
    method: str,
    path: str,
    body: Any,
    scope: str,
    status: int,
    headers: dict[str, str],
) -> None:
    answer = await guarded.call(method, path, value=body, headers=headers)

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json["success"] is False
    assert "API key" in answer.json["error"]
    assert keeps_quiet(answer)


async def test_a_key_in_the_url_opens_nothing(guarded: Service) -> None:
    """URLs end in logs, histories and referrers."""
    for name in ("key", "api_key", "token", "access_token"):
        answer = await guarded.get(f"/campaigns/c/stats?{name}={KEYS['read']}")

        assert answer.status == 401
        assert keeps_quiet(answer)


async def test_a_key_with_two_scopes_opens_both(guarded: Service) -> None:
    headers = bearer(KEYS["both"])

    assert (await guarded.post("/events", item(), headers=headers)).status == 202
    assert (await guarded.get("/campaigns/c/stats", headers=headers)).status == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_scheme_may_be_spelt_in_any_case(guarded: Service, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {KEYS['read']}"}

    assert (await guarded.get("/campaigns/c/stats", headers=headers)).status == 200


async def test_a_body_is_not_read_for_somebody_without_a_key(guarded: Service) -> None:
    """Nobody may keep us busy with what we will not take."""
    answer = await guarded.post("/events", body=b"not json", headers={"Content-Type": "text/plain"})

    assert answer.status == 401


@pytest.mark.parametrize(("method", "path", "status"), OPEN)
async def test_what_a_mail_client_or_a_probe_asks_for_needs_no_key(
    guarded: Service, method: str, path: str, status: int
) -> None:
    for headers in ({}, bearer("no-such-key")):
        assert (await guarded.call(method, path, headers=headers)).status == status


@pytest.mark.parametrize(("method", "path", "body", "scope", "status"), GUARDED)
async def test_with_no_keys_everything_is_open(
    service: Service, method: str, path: str, body: Any, scope: str, status: int
) -> None:
    answer = await service.call(method, path, value=body)

    assert answer.status in (status, 200)
