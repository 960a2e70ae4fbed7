"""Whatever is sent is answered with its reason: never a 500, never silence."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_tracking.events import EventType
from tests.support.events import item, now_iso
from tests.support.service import Answer, Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
MIB = 1024 * 1024
EVENT = json.dumps(item()).encode()
IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def refused(answer: Answer, status: int) -> str:
    """The reason that a refusal gives."""
    assert answer.status == status, answer.body[:200]
    assert answer.json["success"] is False
    error: str = answer.json["error"]
    return error


def custom(text: bytes) -> bytes:
    """An event whose ``customData`` holds some JSON text."""
    return EVENT.replace(b'"eventData": {', b'"eventData": {"customData": {"x": ' + text + b"}, ")


def nested(levels: int) -> dict[str, Any]:
    """Objects in objects."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


def gzip_bomb(size: int) -> bytes:
    """Zeros, compressed a thousand to one."""
    return zlib.compress(bytes(size), 9, wbits=31)


# -- the event itself ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "field", "reason"),
    [
        (5, "", "must be an object"),
        ([], "", "must be an object"),
        (item() | {"eventType": "EMAIL_SNEEZED"}, "eventType", "EMAIL_SNEEZED"),
        (item() | {"eventType": ["EMAIL_OPEN"]}, "eventType", "is not one of"),
        ({"eventData": {}}, "eventType", "is required"),
        ({"eventType": "EMAIL_OPEN"}, "eventData", "is required"),
        ({"eventType": "EMAIL_OPEN", "eventData": "text"}, "eventData", "must be an object"),
        (item() | {"data": {}}, "data", "one of the two"),
        (item() | {"event_type": "EMAIL_OPEN"}, "event_type", "customData"),
        (item() | {"metadata": {"priority": "urgent"}}, "metadata.priority", "high"),
        (item() | {"metadata": {"prio": "high"}}, "metadata.prio", "is not a field"),
        (item() | {"metadata": "high"}, "metadata", "object"),
        (item(campaignId=None), "campaignId", "is required"),
        (item(campaignId=5), "campaignId", "must be a string"),
        (item(campaignId=""), "campaignId", "must not be empty"),
        (item(campaignId="   "), "campaignId", "must not be empty"),
        (item(campaignId="x" * 129), "campaignId", "128"),
        (item(leadId="a\0b"), "leadId", "control characters"),
        (item(leadId="a\x1bb"), "leadId", "control characters"),
        (item(eventId="a\u0085b"), "eventId", "control characters"),
        (item(favouriteColour="blue"), "favouriteColour", "customData"),
        (item(timestamp=None), "timestamp", "is required"),
        (item(timestamp=1795459200), "timestamp", "must be a string"),
        (item(timestamp="yesterday"), "timestamp", "ISO 8601"),
        (item(timestamp="2026-11-23T19:00:00"), "timestamp", "offset"),
        (item(timestamp="2026-02-30T19:00:00Z"), "timestamp", "ISO 8601"),
        (item(timestamp=IN_AN_HOUR), "timestamp", "ahead"),
        (item(timestamp="0001-01-01T00:00:00+14:00"), "timestamp", "year 1"),
        (item(ipAddress="300.1.1.1"), "ipAddress", "IPv4 or IPv6"),
        (item(ipAddress="fe80::1%eth0"), "ipAddress", "IPv4 or IPv6"),
        (item(userAgent="x" * 2049), "userAgent", "2048"),
        (item(deviceInfo={"colour": "blue"}), "deviceInfo.colour", "customData"),
        (item(deviceInfo="mobile"), "deviceInfo", "must be an object"),
        (item(customData=[]), "customData", "must be an object"),
        (item(customData={"x": "y" * 17_000}), "customData", "16384"),
        (item(customData=nested(9)), "customData", "8 levels"),
        (item(customData={"a\0": 1}), "customData", "control character"),
        (item("LINK_CLICK", linkUrl=None), "linkUrl", "is required"),
        (item("LINK_CLICK", linkUrl="javascript:alert(1)"), "linkUrl", "http or https"),
        (item("LINK_CLICK", linkUrl="//example.com"), "linkUrl", "http or https"),
        (item("LINK_CLICK", linkUrl="https://a/\nb"), "linkUrl", "control characters"),
        (item("LINK_CLICK", linkUrl="https://a/" + "x" * 8192), "linkUrl", "8192"),
        (item("EMAIL_BOUNCE", bounceType="bouncy"), "bounceType", "'hard'"),
        (item("EMAIL_BOUNCE", smtpCode=5.5), "smtpCode", "550"),
        (item("EMAIL_REPLY", autoReply="yes"), "autoReply", "true or false"),
        (item("CAMPAIGN_STATUS_CHANGE", newStatus="\0"), "newStatus", "must not be empty"),
        (item("ACCOUNT_HEALTH_UPDATE", healthScore=101), "healthScore", "100"),
        (item("ACCOUNT_HEALTH_UPDATE", accountId=None), "accountId", "is required"),
    ],
)
async def test_an_invalid_event_is_told_its_field_and_why(
    service: Service, event: Any, field: str, reason: str
) -> None:
    single = await service.post("/events", event)
    batch = await service.post("/events/batch", [event])

    assert refused(single, 422) == "Event validation failed"
    assert list(single.json) == ["success", "error", "details"]
    messages = {detail["field"]: detail["message"] for detail in single.json["details"]}
    assert reason in messages[field]
    assert batch.status == 207
    assert batch.json["errors"][0]["details"] == single.json["details"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (custom(b'"cut inside an emoji \\ud83d"'), "surrogate"),
        (custom(b'{"a": 1, "a": 2}'), "uplicate key"),
        (custom(b"[" * 300 + b"]" * 300), "recursion"),
        (custom(b"[" * 100_000 + b"]" * 100_000), "recursion"),
        (custom(b"9" * 5000), "out of range"),
        (custom(b"NaN"), "not valid JSON"),
        (custom(b'"\xff"'), "unicode"),
    ],
    ids=["surrogate", "twice", "deep", "very deep", "long", "NaN", "UTF-8"],
)
async def test_an_item_that_cannot_be_read_refuses_no_other(
    service: Service, bad: bytes, reason: str
) -> None:
    good = [json.dumps(item(eventId=f"e-{uuid4()}")).encode() for _ in range(2)]

    for body in (b'{"events": [%b, %b, %b]}', b"[%b, %b, %b]"):
        answer = await service.post(
            "/events/batch", body=body % (good[0], bad, good[1]), headers=JSON
        )

        assert answer.status == 207, answer.body
        assert answer.json["processed"] + answer.json["duplicates"] == 2
        (error,) = answer.json["errors"]
        assert error["index"] == 1
        assert reason in error["details"][0]["message"]


async def test_every_wrong_field_is_named_at_once(service: Service) -> None:
    answer = await service.post("/events", item(campaignId=5, leadId=None, colour="blue"))

    fields = {detail["field"] for detail in answer.json["details"]}
    assert fields == {"campaignId", "leadId", "colour"}


async def test_control_characters_are_stripped_from_free_text(
    service: Service, shared: Stack
) -> None:
    """Postgres takes no NUL, and whoever reads a log does not want an escape sequence."""
    event = item(
        "EMAIL_REPLY",
        campaignId="stripped",
        subject=" a\0b\x1b[31m ",
        customData={"x": "c\0d"},
        deviceInfo={"os": "i\x07OS"},
    )
    answer = await service.post("/events", event)

    assert answer.status == 202
    await shared.scribes[0].writer.drain()
    listed = await service.get("/campaigns/stripped/events")
    data = listed.json["items"][0]["eventData"]
    assert (data["subject"], data["customData"], data["deviceInfo"]) == (
        "ab[31m",
        {"x": "cd"},
        {"os": "iOS"},
    )


# -- the body ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"not json", 400, "not valid JSON"),
        (EVENT[:-5], 400, "not valid JSON"),
        (EVENT + b"{}", 400, "not valid JSON"),
        (b'{"eventType": "\xff\xfe"}', 400, "not valid JSON"),
        (EVENT.decode().encode("utf-16"), 400, "not valid JSON"),
        (custom(b'"\\ud800"'), 400, "surrogate"),
        (custom(b"NaN"), 400, "not valid JSON"),
        (custom(b"-Infinity"), 400, "not valid JSON"),
        (custom(b"9" * 5000), 400, "out of range"),
        (custom(b"[" * 500 + b"]" * 500), 400, "recursion"),
        (b"[" * 100_000, 400, "recursion"),
        (b'{"eventType": "EMAIL_OPEN", "eventType": "EMAIL_OPEN"}', 400, "uplicate key"),
        (EVENT.replace(b"{", b'{"eventData": {},', 1), 400, "uplicate key"),
        (b" " * (2 * MIB), 413, str(MIB)),
    ],
)
async def test_a_body_that_cannot_be_read_is_told_why(
    service: Service, body: bytes, status: int, reason: str
) -> None:
    answer = await service.post("/events", body=body, headers=JSON)

    assert reason in refused(answer, status)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/events", EVENT, JSON),
        ("/webhook/tracking", EVENT, JSON),
        ("/events/batch", b"[" + EVENT + b"]", JSON),
        ("/events/batch", EVENT + b"\n" + EVENT, NDJSON),
    ],
)
async def test_a_byte_order_mark_is_no_reason_to_refuse(
    service: Service, path: str, body: bytes, headers: dict[str, str]
) -> None:
    answer = await service.post(path, body=b"\xef\xbb\xbf" + body, headers=headers)

    assert answer.status in (200, 202), answer.body


@pytest.mark.parametrize("number", [b"1e400", b"-1e400"])
async def test_a_number_beyond_all_numbers_is_refused(service: Service, number: bytes) -> None:
    answer = await service.post("/events", body=custom(number), headers=JSON)

    assert refused(answer, 422)
    assert answer.json["details"] == [{"field": "customData", "message": "a number is too large"}]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "array of events"),
        (b"{}", 400, "array of events"),
        (b"5", 400, "array of events"),
        (b'{"events": {}}', 400, "array of events"),
        (b'{"events": [], "more": 1}', 400, "'more'"),
        (b"[{]", 400, "not valid JSON"),
        (b"[]", 422, "Event validation failed"),
        (b'{"events": []}', 422, "Event validation failed"),
        (b"[" + b"1," * 10_000 + b"1]", 413, "10000"),
        (b" " * (17 * MIB), 413, str(16 * MIB)),
    ],
)
async def test_a_batch_that_cannot_be_read_is_told_why(
    service: Service, body: bytes, status: int, reason: str
) -> None:
    answer = await service.post("/events/batch", body=body, headers=JSON)

    assert reason in refused(answer, status)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 422, "Event validation failed"),
        (b"\n\n \r\n", 422, "Event validation failed"),
        (b"1\n" * 10_001, 413, "10000"),
    ],
)
async def test_lines_that_are_no_batch_are_told_why(
    service: Service, body: bytes, status: int, reason: str
) -> None:
    answer = await service.post("/events/batch", body=body, headers=NDJSON)

    assert reason in refused(answer, status)


@pytest.mark.parametrize(("path", "size"), [("/events", 2 * MIB), ("/events/batch", 17 * MIB)])
async def test_a_body_without_a_length_is_read_no_further_than_the_limit(
    service: Service, path: str, size: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield b" " * 65536

    answer = await service.post(path, body=pieces(), headers=JSON)

    assert "larger than" in refused(answer, 413)


@pytest.mark.parametrize(
    ("path", "encoding", "body"),
    [
        ("/events", "gzip", gzip_bomb(2 * MIB)),
        ("/events", "zstd", zstandard.compress(bytes(2 * MIB))),
        ("/events/batch", "gzip", gzip_bomb(200 * MIB)),
        ("/events/batch", "gzip", gzip_bomb(40 * MIB) * 2),
        ("/events/batch", "zstd", zstandard.compress(bytes(200 * MIB))),
    ],
    ids=["gzip", "zstd", "gzip batch", "gzip members", "zstd batch"],
)
async def test_a_bomb_is_defused(service: Service, path: str, encoding: str, body: bytes) -> None:
    answer = await service.post(path, body=body, headers=JSON | {"Content-Encoding": encoding})

    assert "decompressed" in refused(answer, 413)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "reason"),
    [
        ("gzip", b"no gzip", 400, "not valid gzip"),
        ("zstd", b"no zstd", 400, "not valid zstd"),
        ("gzip", gzip.compress(EVENT * 50)[:-20], 400, "not valid gzip"),
        ("zstd", zstandard.compress(EVENT * 50)[:-4], 400, "not valid zstd"),
        ("gzip", gzip.compress(EVENT)[:-8] + bytes(8), 400, "not valid gzip"),
        ("br", EVENT, 415, "gzip, zstd or none"),
        ("gzip, gzip", EVENT, 415, "gzip, zstd or none"),
    ],
)
@pytest.mark.parametrize("path", ["/events", "/events/batch"])
async def test_an_encoding_that_does_not_hold_is_told(
    service: Service, path: str, encoding: str, body: bytes, status: int, reason: str
) -> None:
    answer = await service.post(path, body=body, headers=JSON | {"Content-Encoding": encoding})

    assert reason in refused(answer, status)


LINKS = {"campaignId": "c", "leadId": "l", "emailId": "e", "links": ["https://a.example/"]}
SPAN = {"fromTimestamp": "2026-11-20T00:00:00Z", "toTimestamp": "2026-11-21T00:00:00Z"}
WITH_A_BODY = pytest.mark.parametrize(
    ("method", "path", "value", "taken"),
    [
        ("POST", "/tracking-links", LINKS, 201),
        ("POST", "/replays", {"campaignId": "c", **SPAN}, 202),
        ("PUT", "/campaigns/encoded/limits", {"burstCapacity": 5}, 200),
        ("POST", "/dead-letters/redrive", {"campaignId": "nobody"}, 202),
    ],
    ids=["links", "replays", "limits", "redrive"],
)


@WITH_A_BODY
async def test_a_body_of_any_call_may_be_compressed(
    service: Service, method: str, path: str, value: Any, taken: int
) -> None:
    body = json.dumps(value).encode()
    for encoding, packed in (("gzip", gzip.compress(body)), ("zstd", zstandard.compress(body))):
        headers = JSON | {"Content-Encoding": encoding}
        answer = await service.call(method, path, body=packed, headers=headers)
        assert answer.status == taken, answer.body


@WITH_A_BODY
@pytest.mark.parametrize(
    ("encoding", "packed", "status", "reason"),
    [
        ("br", None, 415, "Content-Encoding 'br' is not read here; send gzip, zstd or none"),
        ("gzip", None, 400, "not valid gzip"),
        ("gzip", gzip_bomb(2 * MIB), 413, "decompressed"),
    ],
    ids=["br", "not gzip", "bomb"],
)
async def test_a_body_of_any_call_is_what_its_encoding_says(
    service: Service,
    method: str,
    path: str,
    value: Any,
    taken: int,
    encoding: str,
    packed: bytes | None,
    status: int,
    reason: str,
) -> None:
    body = json.dumps(value).encode() if packed is None else packed
    headers = JSON | {"Content-Encoding": encoding}
    answer = await service.call(method, path, body=body, headers=headers)

    assert reason in refused(answer, status)


async def test_compressed_lines_that_were_cut_off_are_not_taken_for_fewer_lines(
    service: Service,
) -> None:
    """Cut between two blocks, what is left is valid: the rest would be lost in silence."""
    lines = [json.dumps(item(customData={"x": "y" * 1000})).encode() + b"\n" for _ in range(2)]
    compressor = zstandard.ZstdCompressor().compressobj()
    body = compressor.compress(lines[0]) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    answer = await service.post(
        "/events/batch", body=body, headers=NDJSON | {"Content-Encoding": "zstd"}
    )

    assert "not valid zstd" in refused(answer, 400)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"],
)
@pytest.mark.parametrize("path", ["/events", "/webhook/tracking", "/events/batch"])
async def test_another_content_type_is_told_which_header_to_send(
    service: Service, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    reason = refused(await service.post(path, body=EVENT, headers=headers), 415)

    assert "Content-Type: application/json" in reason or "UTF-8" in reason


async def test_lines_are_no_single_event(service: Service) -> None:
    reason = refused(await service.post("/events", body=EVENT, headers=NDJSON), 415)

    assert "Content-Type: application/json" in reason


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/events", "/events/batch", "/webhook/tracking"])
async def test_another_method_is_told_which_to_use(
    service: Service, path: str, method: str
) -> None:
    answer = await service.call(method, path)

    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_path_that_is_not_there_is_named(service: Service) -> None:
    assert "/event/batch" in refused(await service.post("/event/batch", []), 404)


async def test_bytes_that_are_no_http_end_their_own_connection_only(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"\x16\x03\x01 hello?\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert answer.startswith((b"HTTP/1.1 400", b""))
    assert (await service.get("/livez")).status == 200


async def test_a_client_that_goes_away_in_the_middle_of_its_body_hurts_nobody(
    service: Service,
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n" + EVENT[:50]
    )
    await writer.drain()
    writer.transport.abort()

    assert (await service.post("/events", item())).status == 202


# -- anything ------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([*EventType, now_iso(), "1970-01-01T00:00:00Z", "::1", "\0", "http://a"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "campaignId", "leadId", "emailId", "accountId", "eventId", "timestamp", "linkUrl", "linkId",
        "ipAddress", "userAgent", "deviceInfo", "locationInfo", "customData", "bounceType",
        "smtpCode", "autoReply", "newStatus", "healthScore", "subject",
    ]
)  # fmt: skip
nearly_events = st.builds(
    lambda kind, more, metadata: {
        "eventType": kind,
        "eventData": item(kind if isinstance(kind, EventType) else "EMAIL_OPEN")["eventData"]
        | more,
        **metadata,
    },
    st.sampled_from(EventType) | values,
    st.dictionaries(names, values, max_size=4),
    st.just({}) | st.fixed_dictionaries({"metadata": values}),
)


def is_an_answer(answer: Answer) -> bool:
    """One of the statuses that are ours to give."""
    assert answer.status < 500, answer.body
    return "success" in answer.json


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from([*JSON.values(), *NDJSON.values()]),
    encoding=st.sampled_from(["identity", "gzip", "zstd"]),
)
@settings(max_examples=40)
async def test_no_bytes_make_a_server_error(
    service: Service, path: str, body: bytes, kind: str, encoding: str
) -> None:
    headers = {"Content-Type": kind, "Content-Encoding": encoding}

    assert is_an_answer(await service.post(path, body=body, headers=headers))


@given(value=nearly_events | values)
@settings(max_examples=60)
async def test_no_json_makes_a_server_error(service: Service, value: Any) -> None:
    """And whatever is accepted does not stop the writer."""
    # json writes lone surrogates and infinities as hostile clients would.
    for path, body in (("/events", value), ("/events/batch", [value])):
        text = json.dumps(body).encode()
        assert is_an_answer(await service.post(path, body=text, headers=JSON))


async def test_whatever_was_accepted_above_has_become_rows(shared: Stack) -> None:
    """A row that Postgres refuses would stop the writer for everybody."""
    async with asyncio.timeout(20):
        await shared.scribes[0].writer.drain()
    assert shared.scribes[0].died is None
    assert len(await shared.logged_ids()) == await shared.count()
