"""Requests that need no task of their own: answered as any other, whatever their shape."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.service import Answer, Service
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


class Raw:
    """A connection that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def answer(self) -> Answer:
        """The next one."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        headers = {k.title(): v for k, _, v in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        return Answer(int(status.split()[1]), headers, body)

    async def ended(self) -> bool:
        """Whether the other side has closed."""
        return await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()


@pytest_asyncio.fixture(loop_scope="session")
async def service(stack: Stack) -> Service:
    await stack.shard()
    return await stack.service(max_events_per_window=1000)


@pytest_asyncio.fixture(loop_scope="session")
async def raw(service: Service) -> AsyncIterator[Raw]:
    connection = Raw(*await asyncio.open_connection("127.0.0.1", service.port))
    yield connection
    connection.close()


def body_of(event_id: str, **more: Any) -> bytes:
    data = {
        "eventId": event_id, "campaignId": "spring", "leadId": "ada", "emailId": "mail",
        "timestamp": "2026-11-01T09:00:00Z", **more,
    }  # fmt: skip
    return json.dumps({"eventType": "EMAIL_OPEN", "eventData": data}).encode()


def post(body: bytes, *headers: str, path: str = "/events", version: str = "1.1") -> bytes:
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: test",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


async def test_requests_behind_each_other_are_answered_in_their_order(raw: Raw) -> None:
    await raw.send(
        post(body_of("one"))
        + get("/livez")
        + post(b"{")
        + post(body_of("two"))
        + get("/pixel/nothing")
        + post(body_of("one"))
    )
    answers = [await raw.answer() for _ in range(6)]
    assert [answer.status for answer in answers] == [202, 200, 400, 202, 200, 200]
    assert [answers[i].json["eventId"] for i in (0, 3, 5)] == ["one", "two", "one"]
    assert answers[4].headers["Content-Type"] == "image/gif"


async def test_one_that_is_refused_at_once_holds_up_nobody(raw: Raw) -> None:
    for number in range(3):
        await raw.send(post(b"[]"))
        assert (await raw.answer()).status == 422
        await raw.send(post(body_of(f"good-{number}")))
        assert (await raw.answer()).status == 202


async def test_a_request_may_come_byte_by_byte(raw: Raw) -> None:
    await raw.send(*[bytes([byte]) for byte in post(body_of("slow"))])
    assert (await raw.answer()).status == 202


@pytest.mark.parametrize(
    ("headers", "version", "path"),
    [
        ((), "1.1", "/events"),
        (("Connection: keep-alive",), "1.1", "/events"),
        ((), "1.1", "/events?source=test"),
        ((), "1.1", "/%65vents"),
        ((), "1.1", "/webhook/tracking"),
    ],
)
async def test_it_is_answered_alike_by_either_way(
    raw: Raw, headers: tuple[str, ...], version: str, path: str
) -> None:
    for body, status in (
        (body_of("alike"), 202),
        (body_of("alike"), 200),
        (body_of(""), 422),
        (b"nonsense", 400),
        (body_of("large", customData={"text": "x" * 15_000}), 202),
        (body_of("very-large", customData={"text": "x" * 20_000}), 422),
    ):
        await raw.send(post(body, *headers, path=path, version=version))
        answer = await raw.answer()
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/json"
        assert "Date" in answer.headers


@pytest.mark.parametrize(
    "request_", [post(body_of("last"), "Connection: close"), post(body_of("old"), version="1.0")]
)
async def test_a_connection_that_is_to_close_closes_behind_the_answer(
    raw: Raw, request_: bytes
) -> None:
    await raw.send(request_)
    assert (await raw.answer()).status == 202
    assert await raw.ended()


async def test_a_client_may_ask_whether_to_go_on(raw: Raw) -> None:
    request = post(body_of("asked"), "Expect: 100-continue")
    head, body = request.split(b"\r\n\r\n", 1)
    await raw.send(head + b"\r\n\r\n")
    assert (await raw.answer()).status == 100
    await raw.send(body)
    assert (await raw.answer()).status == 202


_H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")


@pytest.mark.parametrize(
    "offer", [_H2C, ("Connection: Upgrade", "Upgrade: TLS/1.0"), ("Connection: Upgrade",)]
)
async def test_an_upgrade_that_is_not_made_changes_nothing(
    raw: Raw, offer: tuple[str, ...]
) -> None:
    """Java's client offers HTTP/2 with its first request, which has a body."""
    whole = post(body_of("offered"), *offer)
    head, body = whole.split(b"\r\n\r\n", 1)
    for pieces in ((whole,), (head + b"\r\n\r\n", body), [bytes([byte]) for byte in whole]):
        await raw.send(*pieces)
        assert (await raw.answer()).status in (202, 200)
    chunked = body_of("in-chunks")
    pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in (chunked[:9], chunked[9:])]
    lines = ("POST /events HTTP/1.1", "Host: test", "Content-Type: application/json", *offer)
    framing = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    await raw.send(framing, *pieces, b"0\r\n\r\n")
    assert (await raw.answer()).status == 202
    await raw.send(get("/livez").replace(b"\r\n\r\n", f"\r\n{offer[0]}\r\n\r\n".encode()))
    assert (await raw.answer()).status == 200


async def test_requests_behind_an_upgrade_that_is_not_made_are_answered(raw: Raw) -> None:
    offered = post(body_of("first"), *_H2C)
    await raw.send(offered + post(body_of("second")) + offered + get("/livez"))
    assert [(await raw.answer()).status for _ in range(4)] == [202, 202, 200, 200]


async def test_a_websocket_begins_with_a_get(raw: Raw) -> None:
    await raw.send(post(body_of("no-socket"), "Connection: Upgrade", "Upgrade: websocket"))
    assert (await raw.answer()).status == 202


async def test_an_event_whose_sender_has_gone_is_one_row(
    stack: Stack, service: Service, raw: Raw
) -> None:
    await stack.writer()
    stack.answering.clear()
    await raw.send(post(body_of("gone")))
    await eventually(lambda: service.ports.gatherer.room.events == 1)
    raw.close()
    stack.answering.set()
    await eventually(lambda: stack.has_rows(1))
    assert (await service.get("/livez")).status == 200


async def test_a_handler_that_fails_is_a_500_and_no_more(
    service: Service, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as broken:
        broken.setattr(service.ports.router, "route", fail)
        await raw.send(post(body_of("failed")))
        assert (await raw.answer()).status == 500
    await raw.send(post(body_of("failed")))
    assert (await raw.answer()).status == 202
