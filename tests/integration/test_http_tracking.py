"""Pixels and clicks: a bad day of ours never shows in somebody's mail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from ray_tracking.pipeline.rate import RatePolicy
from tests.support.service import Answer, Service
from tests.support.stack import PARKED, Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

GIF_START = b"GIF89a\x01\x00\x01\x00"
PIXEL_HEADERS = {
    "Content-Type": "image/gif",
    "Content-Length": "43",
    "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
}
CLICK_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
URL = "https://example.com/offer?id=7&x=%20"
SLACK_S = 1.0


class Mail:
    """One mail: a campaign, a lead and an email of its own, and the tokens in it."""

    def __init__(self, service: Service, campaign: str | None = None) -> None:
        self.service = service
        self.campaign = campaign or f"campaign-{uuid4()}"
        self.ids = (self.campaign, f"lead-{uuid4()}", "mail-1")
        now_s = int(time.time())
        tokens = service.ports.tokens
        self.pixel = "/pixel/" + tokens.mint_open(*self.ids, minted_at_s=now_s)
        self.click = "/click/" + tokens.mint_click(*self.ids, URL, link_id="l", minted_at_s=now_s)


@pytest_asyncio.fixture(loop_scope="session")
async def mail(service: Service) -> Mail:
    """A mail of this test's own."""
    return Mail(service)


async def rows_of(stack: Stack, mail: Mail, number: int = 1) -> list[Any]:
    """The rows of a mail, once there are so many."""

    async def rows() -> list[Any] | None:
        found = await stack.sql("SELECT * FROM events WHERE lead_id = $1", mail.ids[1])
        return found if len(found) == number else None

    found: list[Any] = await eventually(rows)
    return found


def has(answer: Answer, headers: Mapping[str, str]) -> bool:
    """Are these headers there, exactly, and once?"""
    got = {name: answer.headers.getall(name, []) for name in headers}  # type: ignore[attr-defined]
    return got == {name: [value] for name, value in headers.items()}


def is_pixel(answer: Answer) -> bool:
    """The GIF, and nothing that would make somebody keep it."""
    return (
        answer.status == 200
        and has(answer, PIXEL_HEADERS)
        and answer.body.startswith(GIF_START)
        and len(answer.body) == 43
    )


def is_durable(answer: Answer) -> bool:
    """Does it say that the event is?"""
    return answer.headers.get("X-Tracking-Durable") == "1"


# -- pixels --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}.gif", "{}.gif?utm=1"])
async def test_a_pixel_is_a_gif_and_becomes_an_open(mail: Mail, shared: Stack, form: str) -> None:
    answer = await mail.service.get(form.format(mail.pixel), headers={"User-Agent": "Mail/1.0"})

    assert is_pixel(answer)
    assert is_durable(answer)
    (row,) = await rows_of(shared, mail)
    assert (row["campaign_id"], row["lead_id"], row["email_id"]) == mail.ids
    assert (row["event_type"], row["agent"]) == ("EMAIL_OPEN", None)
    assert (str(row["ip_address"]), row["user_agent"]) == ("127.0.0.1", "Mail/1.0")


async def test_a_pixels_token_may_stand_in_the_query(mail: Mail, shared: Stack) -> None:
    answer = await mail.service.get(f"/pixel?x=1&t={mail.pixel.removeprefix('/pixel/')}")

    assert is_pixel(answer)
    assert is_durable(answer)
    await rows_of(shared, mail)


@pytest.mark.parametrize(
    "path",
    [
        "/pixel",
        "/pixel/",
        "/pixel/.gif",
        "/pixel/nonsense",
        "/pixel/nonsense.gif",
        "/pixel/%00%ff/../..",
        "/pixel/a/b/c",
        "/pixel/" + "A" * 30_000,
        "/pixel?t=",
        "/pixel?t=nonsense",
        "/pixel?" + "&".join(f"x{n}=1" for n in range(100)),
        "/pixel?t=%ff%fe;&&==",
    ],
)
async def test_a_bad_token_gets_the_same_gif(service: Service, path: str) -> None:
    answer = await service.get(path)

    assert is_pixel(answer)
    assert not is_durable(answer)


async def test_a_token_of_one_kind_is_none_of_the_other(mail: Mail, shared: Stack) -> None:
    """A click's token counted as an open would be an event that nobody reported."""
    pixel = await mail.service.get(mail.click.replace("/click/", "/pixel/"))
    click = await mail.service.get(mail.pixel.replace("/pixel/", "/click/"))

    assert is_pixel(pixel)
    assert not is_durable(pixel)
    assert click.status == 404
    assert await shared.sql("SELECT 1 FROM events WHERE lead_id = $1", mail.ids[1]) == []


async def test_a_token_that_was_changed_is_a_bad_one(mail: Mail) -> None:
    changed = mail.click[:-2] + ("A" if mail.click[-2] != "A" else "B") + mail.click[-1]

    assert (await mail.service.get(changed)).status == 404


async def test_a_pixel_that_is_fetched_again_is_one_open(mail: Mail, shared: Stack) -> None:
    """Mail clients and proxies fetch as often as they like."""
    answers = await asyncio.gather(*[mail.service.get(mail.pixel) for _ in range(5)])

    assert all(is_pixel(answer) and is_durable(answer) for answer in answers)
    await shared.scribes[0].writer.drain()
    await rows_of(shared, mail, 1)


async def test_a_head_is_answered_alike_and_stored_as_a_machine(mail: Mail, shared: Stack) -> None:
    """Scanners ask so; a reader's open behind it still counts."""
    heads = [await mail.service.call("HEAD", path) for path in (mail.pixel, mail.click)]
    opened = await mail.service.get(mail.pixel)

    assert [(head.status, head.body) for head in heads] == [(200, b""), (302, b"")]
    assert has(heads[0], PIXEL_HEADERS)
    assert has(heads[1], CLICK_HEADERS | {"Location": URL})
    assert all(is_durable(answer) for answer in (*heads, opened))
    rows = await rows_of(shared, mail, 3)
    assert sorted((row["event_type"], str(row["agent"])) for row in rows) == [
        ("EMAIL_OPEN", "None"),
        ("EMAIL_OPEN", "machine"),
        ("LINK_CLICK", "machine"),
    ]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/pixel", "/pixel/x.gif", "/click", "/click/x"])
async def test_another_method_is_told_which_to_use(
    service: Service, path: str, method: str
) -> None:
    answer = await service.call(method, path)

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_user_agent_full_of_rubbish_is_stored_clean(mail: Mail, shared: Stack) -> None:
    agent = "Mozilla/5.0 \xff\xa0\t" + "x" * 5000
    answer = await mail.service.get(mail.pixel, headers={"User-Agent": agent})

    assert is_durable(answer)
    (row,) = await rows_of(shared, mail)
    assert len(row["user_agent"]) <= 2048
    assert row["user_agent"].isprintable()


# -- clicks --------------------------------------------------------------------------


async def test_a_click_leads_to_its_link_and_becomes_a_click(mail: Mail, shared: Stack) -> None:
    answer = await mail.service.get(mail.click)

    assert (answer.status, answer.body) == (302, b"")
    assert has(answer, CLICK_HEADERS | {"Location": URL})
    assert is_durable(answer)
    (row,) = await rows_of(shared, mail)
    assert (row["event_type"], row["link_url"]) == ("LINK_CLICK", URL)
    assert row["details"] == '{"linkId": "l"}'


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTP://EXAMPLE.com:8080/A?B=C#D",
        "https://example.com/?a=1&amp;b=2&c[]=3&d=%2F%2f%zz",
        "https://example.com/a+b/../c//d/./e/%2e%2e/;p=1?",
        "https://example.com/'\"<>`{}|^~!$*(),@:",
        "https://example.com/#/spa?not=query",
        "https://example.com/?next=https://other.example/?x=//y",
        "https://example.com./trailing.dot",
        "https://xn--mnchen-3ya.de/",
        "http://[2001:db8::1]:8080/x",
        "http://192.0.2.1/",
        "https://example.com/" + "x" * 8000,
    ],
)
async def test_a_link_goes_out_byte_for_byte(service: Service, url: str) -> None:
    """Whatever looks odd in a link is its owner's, and may be signed."""
    minted = await service.post("/tracking-links", links(url))
    path = minted.json["links"][0]["trackingUrl"].removeprefix(
        service.ports.settings.public_base_url
    )

    answer = await service.get(path)

    assert (answer.status, answer.headers["Location"]) == (302, url)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://example.com/a b", "https://example.com/a%20b"),
        ("https://example.com/é?ü=ß#\N{ROCKET}",
         "https://example.com/%C3%A9?%C3%BC=%C3%9F#%F0%9F%9A%80"),
        ("https://faß.de/", "https://xn--fa-hia.de/"),
    ],
)  # fmt: skip
async def test_what_no_header_can_carry_is_written_as_a_browser_would(
    service: Service, url: str, location: str
) -> None:
    minted = await service.post("/tracking-links", links(url))
    path = minted.json["links"][0]["trackingUrl"].removeprefix(
        service.ports.settings.public_base_url
    )

    assert (await service.get(path)).headers["Location"] == location


@pytest.mark.parametrize(
    "path",
    ["/click", "/click/", "/click/nonsense", "/click?t=x", "/click/https://evil.example",
     "/click?url=https://evil.example", "/click/x?next=https://evil.example",
     "/click?" + "&".join(f"x{n}=1" for n in range(100))],
)  # fmt: skip
async def test_a_bad_click_is_a_404_page_that_leads_nowhere(service: Service, path: str) -> None:
    answer = await service.get(path)

    assert answer.status == 404
    assert has(answer, CLICK_HEADERS | {"Content-Type": "text/html; charset=utf-8"})
    assert "Location" not in answer.headers
    assert b"evil" not in answer.body


# -- making links --------------------------------------------------------------------


def links(*urls: Any, **more: Any) -> dict[str, Any]:
    """The body of ``POST /tracking-links``."""
    ids = {"campaignId": "c", "leadId": f"lead-{uuid4()}", "emailId": "e"}
    return ids | {"links": list(urls)} | more


async def test_links_are_made_under_the_base_url_and_hide_what_they_hold(stack: Stack) -> None:
    service = await stack.service(base_url="https://track.example.com/t/")

    answer = await service.post("/tracking-links", links(URL, "https://b.example"))

    assert answer.status == 201
    body = answer.json
    assert list(body) == ["pixelUrl", "links"]
    assert body["pixelUrl"].startswith("https://track.example.com/t/pixel/")
    assert body["pixelUrl"].endswith(".gif")
    assert [link["url"] for link in body["links"]] == [URL, "https://b.example"]
    for link in body["links"]:
        assert link["trackingUrl"].startswith("https://track.example.com/t/click/")
        assert "example" not in link["trackingUrl"].partition("/click/")[2]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (5, ""),
        (links(URL, campaignId=None), "campaignId"),
        (links(URL, leadId="a\0"), "leadId"),
        (links(URL, more=1), "more"),
        (links(5), "links.0"),
        (links(URL, "javascript:alert(1)"), "links.1"),
        (links("https://good@evil.example"), "links.0"),
        (links("https://example.com\\@evil.example"), "links.0"),
        (links("https://a.example/\r\nSet-Cookie: x"), "links.0"),
        (links(links=URL), "links"),
        (links(*["https://a.example"] * 1001), "links"),
    ],
)
async def test_links_that_cannot_be_made_are_told_why(
    service: Service, body: Any, field: str
) -> None:
    answer = await service.post("/tracking-links", body)

    assert (answer.status, answer.json["error"]) == (422, "Event validation failed")
    assert field in {detail["field"] for detail in answer.json["details"]}


async def test_links_are_asked_for_in_json(service: Service) -> None:
    assert (await service.post("/tracking-links", body=b"{}")).status == 415
    headers = {"Content-Type": "application/json"}
    assert (await service.post("/tracking-links", body=b"{", headers=headers)).status == 400
    assert (await service.get("/tracking-links")).headers["Allow"] == "POST"


# -- whose address -------------------------------------------------------------------


async def test_a_forwarded_address_is_believed_from_a_trusted_proxy_only(
    mail: Mail, shared: Stack
) -> None:
    await mail.service.get(mail.pixel, headers={"X-Forwarded-For": "203.0.113.7"})
    behind_proxy = await shared.service(trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])
    other = Mail(behind_proxy)
    await behind_proxy.get(
        other.pixel, headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.1.2.3"}
    )

    (row,) = await rows_of(shared, mail)
    (forwarded,) = await rows_of(shared, other)
    assert str(row["ip_address"]) == "127.0.0.1"
    assert str(forwarded["ip_address"]) == "203.0.113.7"


# -- bad days ------------------------------------------------------------------------


async def timed(service: Service, path: str) -> tuple[Answer, float]:
    """An answer and how long it took, in seconds."""
    started = time.monotonic()
    return await service.get(path), time.monotonic() - started


async def test_a_hit_waits_no_longer_than_its_time_and_is_stored_later(stack: Stack) -> None:
    """The shard hangs: the reader sees nothing of it, and the event is not lost."""
    await stack.shard()
    await stack.writer()
    service = await stack.service(answer_timeout_ms=80, patience_s=0.3)
    mail = Mail(service)
    await service.get("/livez")
    stack.answering.clear()

    pixel, pixel_s = await timed(service, mail.pixel)
    click, click_s = await timed(service, mail.click)

    assert is_pixel(pixel)
    assert (click.status, click.headers["Location"]) == (302, URL)
    assert not is_durable(pixel)
    assert not is_durable(click)
    assert 0.08 <= pixel_s < 0.08 + SLACK_S
    assert 0.08 <= click_s < 0.08 + SLACK_S
    assert service.app.tracking.unconfirmed == 2
    stack.answering.set()
    await rows_of(stack, mail, 2)
    assert service.app.tracking.lost == 0


async def test_a_hit_while_the_log_is_away_is_stored_when_it_is_back(stack: Stack) -> None:
    proxy, url = await stack.valkey_proxy()
    await stack.shard(redis_url=url)
    await stack.writer()
    service = await stack.service(answer_timeout_ms=50)
    mail = Mail(service)
    proxy.cut()
    proxy.refuse()

    pixel, pixel_s = await timed(service, mail.pixel)

    assert is_pixel(pixel)
    assert not is_durable(pixel)
    assert pixel_s < 0.05 + SLACK_S
    await proxy.accept()
    await rows_of(stack, mail)


async def test_a_hit_never_waits_for_postgres(stack: Stack) -> None:
    proxy, url = await stack.postgres_proxy()
    proxy.refuse()
    await stack.shard(database_url=url)
    service = await stack.service(database_url=url)
    mail = Mail(service)

    assert is_durable(await service.get(mail.pixel))
    assert is_durable(await service.get(mail.click))


async def test_hits_over_the_rate_are_durable_all_the_same(stack: Stack) -> None:
    """Nobody can be told to open a mail again later."""
    await stack.shard(rate=RatePolicy(max_events=1))
    service = await stack.service()
    mails = [Mail(service, stack.campaign_in(0)) for _ in range(3)]

    answers = [await service.get(mail.pixel) for mail in mails]

    assert all(is_pixel(answer) and is_durable(answer) for answer in answers)
    assert sum(entry.header.count for entry in await stack.batches(0, PARKED)) == 2


async def test_a_hit_that_finds_no_room_gets_its_answer_and_is_counted_lost(
    stack: Stack,
) -> None:
    await stack.shard()
    service = await stack.service(
        max_buffer_size=4,
        backpressure_thresholds={"warning": 1, "critical": 2, "emergency": 3},
    )
    stack.answering.clear()
    for _ in range(4):
        assert is_pixel(await service.get(Mail(service).pixel))

    late = await service.get(Mail(service).pixel)

    assert is_pixel(late)
    assert not is_durable(late)
    assert (service.app.tracking.unconfirmed, service.app.tracking.lost) == (4, 1)


async def test_a_replica_that_ends_first_sees_its_hits_into_the_log(stack: Stack) -> None:
    await stack.shard()
    service = await stack.service()
    stack.answering.clear()
    assert not is_durable(await service.get(Mail(service).pixel))
    draining = asyncio.create_task(service.app.tracking.drain())
    await asyncio.wait([draining], timeout=0.05)
    assert not draining.done()

    stack.answering.set()
    await draining

    assert len(await stack.logged_ids()) == 1
