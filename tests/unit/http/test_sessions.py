"""The cookie that stands for a key: what it opens, when it ends, from where it counts."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from ray_tracking.http.access import Access
from ray_tracking.http.asgi import Refusal
from ray_tracking.http.sessions import COOKIE, LASTS_S
from ray_tracking.settings import ApiKey, Settings

READER = "key-that-reads"
SENDER = "key-that-sends"


class Hands:
    """A clock that stands still until it is moved."""

    now_ms = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Hands:
    return Hands()


def keys(*texts: str) -> tuple[ApiKey, ...]:
    return Settings.load({"api_keys": list(texts)}, env={}).api_keys


@pytest.fixture
def access(clock: Hands) -> Access:
    known = keys(f"{READER}:read", f"{SENDER}:ingest")
    return Access(known, "http://tracking.example:8000", clock)


def scope(cookie: str | None = None, **headers: str) -> dict[str, Any]:
    given = {"host": "tracking.example:8000", **headers}
    if cookie is not None:
        given["cookie"] = cookie
    return {"headers": [(name.encode(), value.encode()) for name, value in given.items()]}


def carried(set_cookie: str) -> str:
    """What a browser sends back."""
    return f"other=1; {COOKIE}={SimpleCookie(set_cookie)[COOKIE].value}"


def refused(access: Access, given: dict[str, Any], needed: Any = "read") -> bool:
    try:
        access.require(given, needed)
    except Refusal:
        return True
    return False


def test_a_session_opens_reading_and_nothing_else(access: Access) -> None:
    cookie = carried(access.open_session(READER))

    assert not refused(access, scope(cookie))
    assert refused(access, scope(cookie), "ingest")
    assert refused(access, scope(cookie), "admin")


def test_a_key_that_may_not_read_gets_no_session(access: Access) -> None:
    with pytest.raises(Refusal) as without_scope:
        access.open_session(SENDER)
    with pytest.raises(Refusal) as unknown:
        access.open_session("no-such-key")

    assert (without_scope.value.status, unknown.value.status) == (403, 401)


def test_it_ends_by_itself(access: Access, clock: Hands) -> None:
    cookie = carried(access.open_session(READER))

    clock.now_ms += (LASTS_S - 1) * 1000
    assert not refused(access, scope(cookie))
    clock.now_ms += 1000
    assert refused(access, scope(cookie))


def test_it_ends_with_its_key(access: Access, clock: Hands) -> None:
    cookie = carried(access.open_session(READER))

    assert refused(Access(keys("another-key:read"), "", clock), scope(cookie))
    assert refused(Access(keys(f"{READER}:ingest"), "", clock), scope(cookie))


def test_every_replica_knows_it(access: Access, clock: Hands) -> None:
    elsewhere = Access(keys("another-key:read", f"{READER}:read"), "", clock)

    assert not refused(elsewhere, scope(carried(access.open_session(READER))))


def test_nobody_can_make_one_or_make_one_last(access: Access) -> None:
    ends, _, signature = carried(access.open_session(READER)).rpartition("=")[2].partition(".")

    for value in (
        f"{int(ends) + 1}.{signature}",
        f"{ends}.{signature[:-1]}",
        f"{ends}.{signature}é",
        f"{ends}.",
        ends,
        f"-1.{signature}",
        f"{'9' * 5000}.{signature}",
        "",
    ):
        assert refused(access, scope(f"{COOKIE}={value}"))


@pytest.mark.parametrize("origin", ["http://evil.example", "http://tracking.example:3000", "null"])
def test_a_page_of_another_origin_cannot_use_it(access: Access, origin: str) -> None:
    """Another port of the same host is the same site, to which browsers do send the cookie."""
    cookie = carried(access.open_session(READER))

    assert refused(access, scope(cookie, origin=origin))
    assert not refused(access, scope(cookie, origin="http://tracking.example:8000"))
    behind_proxy = scope(cookie, origin="http://tracking.example:8000")
    behind_proxy["headers"][0] = (b"host", b"10.0.0.7:8000")
    assert not refused(access, behind_proxy)


def test_a_key_in_the_header_goes_first(access: Access) -> None:
    """Whoever sends a key is answered for that key."""
    cookie = carried(access.open_session(READER))

    assert refused(access, scope(cookie, authorization="Bearer no-such-key"))


def test_scripts_and_other_sites_never_see_it(access: Access, clock: Hands) -> None:
    plain = access.open_session(READER)
    encrypted = Access(keys(f"{READER}:read"), "https://t.example", clock).open_session(READER)

    for cookie in (plain, encrypted, access.sessions.end()):
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert READER not in cookie
    assert "Secure" not in plain
    assert encrypted.endswith("Secure")
