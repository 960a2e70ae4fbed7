"""``/dashboard`` over HTTP: its files, what protects them, and the key for a cookie."""

from __future__ import annotations

import gzip
import re
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio

from tests.support.service import Answer, Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

READER = "key-that-reads"
SENDER = "key-that-sends"
#: The client of the tests asks for gzip by itself.
_PLAIN = {"Accept-Encoding": "identity"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(shared: Stack) -> Service:
    """A service with keys."""
    return await shared.service(api_keys=[f"{READER}:read", f"{SENDER}:ingest"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_to_all(shared: Stack) -> Service:
    """One without."""
    return await shared.service()


async def log_in(service: Service, key: str) -> Answer:
    return await service.post(
        "/dashboard/login", body=urlencode({"key": key}).encode(), headers=_FORM
    )


async def test_without_keys_the_page_is_there(open_to_all: Service) -> None:
    page = await open_to_all.get("/dashboard")

    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"data-session" not in page.body
    login = await open_to_all.get("/dashboard/login")
    assert (login.status, login.headers["Location"]) == (303, "/dashboard")


async def test_the_policy_forbids_what_the_page_does_not_use(open_to_all: Service) -> None:
    for path in ("/dashboard", "/dashboard/static/js/main.js"):
        answer = await open_to_all.get(path)
        policy = answer.headers["Content-Security-Policy"]

        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_every_file_that_is_named_is_there_and_comes_from_here(open_to_all: Service) -> None:
    """Pages name files, scripts import files; nothing is elsewhere."""
    seen: set[str] = set()
    waiting = ["/dashboard", "/dashboard/static/login.html"]
    while waiting:
        path = waiting.pop()
        answer = await open_to_all.get(path, headers=_PLAIN)
        assert answer.status == 200, path
        text = answer.body.decode()
        found = re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', text)
        directory = path.rpartition("/")[0]
        for name in re.findall(r'^import .*from "(.+)";$', text, re.MULTILINE):
            found.append(f"{directory}/{name.removeprefix('./')}".replace("/js/../", "/"))
        waiting += [name for name in found if name not in seen]
        seen.update(found)
        if "vendor" not in path:
            assert not re.findall(r'(?:src|href|from)[ =]"https?:', text)

    assert len(seen) > 20


async def test_a_file_that_the_browser_has_is_not_sent_again(open_to_all: Service) -> None:
    path = "/dashboard/static/vendor/uPlot.esm.js"
    plain = await open_to_all.get(path, headers=_PLAIN)
    packed = await open_to_all.get(path, headers={"Accept-Encoding": "gzip"})
    again = await open_to_all.get(path, headers={"If-None-Match": plain.headers["ETag"]})

    assert plain.headers["Content-Type"].startswith("text/javascript")
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["no.js", "../__init__.py", "%2e%2e/__init__.py", "js", ""])
async def test_nothing_else_can_be_had(open_to_all: Service, name: str) -> None:
    assert (await open_to_all.get(f"/dashboard/static/{name}")).status == 404


async def test_with_keys_the_page_asks_for_one(guarded: Service) -> None:
    page = await guarded.get("/dashboard")

    assert (page.status, page.headers["Location"]) == (303, "/dashboard/login")
    assert b"<form" in (await guarded.get("/dashboard/login")).body


async def test_a_key_becomes_a_cookie_that_reads(guarded: Service) -> None:
    entered = await log_in(guarded, READER)
    cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}

    assert (entered.status, entered.headers["Location"]) == (303, "/dashboard")
    assert READER not in repr(entered)
    assert b'data-session="yes"' in (await guarded.get("/dashboard", headers=cookie)).body
    assert (await guarded.get("/campaigns/c/stats", headers=cookie)).status == 200
    assert (await guarded.get("/dead-letters", headers=cookie)).status == 401
    assert (await guarded.post("/events", {}, headers=cookie)).status == 401


async def test_the_cookie_ends_with_the_logout(guarded: Service) -> None:
    left = await guarded.post("/dashboard/logout")

    assert (left.status, left.headers["Location"]) == (303, "/dashboard/login")
    assert "Max-Age=0" in left.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("key", "status", "told"),
    [
        ("no-such-key", 401, "is not known"),
        ("", 401, "is not known"),
        (SENDER, 403, "does not have the scope"),
        ("<script>", 401, "is not known"),
        ("x" * 10_000, 413, "the limit is"),
    ],
)
async def test_another_key_is_refused_in_words(
    guarded: Service, key: str, status: int, told: str
) -> None:
    answer = await log_in(guarded, key)

    assert answer.status == status
    assert told in answer.body.decode()
    assert "Set-Cookie" not in answer.headers
    assert not key or key.encode() not in answer.body


async def test_the_cookie_opens_the_socket_as_a_key_does(guarded: Service) -> None:
    entered = await log_in(guarded, READER)
    cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
    here = {**cookie, "Origin": guarded.url}

    async with guarded.client.ws_connect(f"{guarded.url}/ws", headers=here) as socket:
        await socket.send_json({"action": "ping"})
        assert (await socket.receive_json(timeout=4))["event"] == "pong"


async def test_a_page_of_another_origin_gets_no_socket(guarded: Service) -> None:
    """Browsers let any page open a socket anywhere, and send the cookies of that place along."""
    entered = await log_in(guarded, READER)
    cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
    elsewhere = {**cookie, "Origin": "http://127.0.0.1:1"}

    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await guarded.client.ws_connect(f"{guarded.url}/ws", headers=elsewhere)
    assert refused.value.status == 403
