"""Receiving: bytes become JSON values, or one clear reason why not."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.errors import MalformedRequest, PayloadTooLarge, UnsupportedMedia
from ray_tracking.events import MAX_BATCH_EVENTS
from ray_tracking.pipeline.items import items_of
from ray_tracking.pipeline.receive import (
    JSON,
    NDJSON,
    decompress,
    media_type,
    parse_batch,
    parse_json,
    parse_single,
    trace_context,
)

BOTH = (JSON, NDJSON)
COMPRESS = {"gzip": gzip.compress, "zstd": zstandard.compress}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
encodings = pytest.mark.parametrize("encoding", COMPRESS)


# -- Content-Type ------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "media"),
    [
        ("application/json", JSON),
        ("Application/JSON", JSON),
        (" application/json ; charset=utf-8", JSON),
        ('application/json; charset="UTF-8"', JSON),
        ("application/json;charset=us-ascii; version=1", JSON),
        ("application/json; version=1", JSON),
        ("application/x-ndjson", NDJSON),
    ],
)
def test_the_media_type_is_read_as_http_writes_it(header: str, media: str) -> None:
    assert media_type(header, BOTH) == media


@pytest.mark.parametrize(
    "header", [None, "", ";", "text/plain", "application/jsonp", "json", "*/*"]
)
def test_another_type_is_refused_with_the_header_to_send(header: str | None) -> None:
    with pytest.raises(UnsupportedMedia, match="send Content-Type: application/json") as refused:
        media_type(header, BOTH)

    assert refused.value.status == 415
    assert "or Content-Type: application/x-ndjson" in str(refused.value)


def test_ndjson_is_refused_where_one_event_is_expected() -> None:
    with pytest.raises(UnsupportedMedia, match=r"send Content-Type: application/json$"):
        media_type(NDJSON, (JSON,))


@pytest.mark.parametrize("charset", ["utf-16", "iso-8859-1", '"latin1"'])
def test_a_charset_that_is_not_utf_8_is_refused(charset: str) -> None:
    with pytest.raises(UnsupportedMedia, match="send UTF-8"):
        media_type(f"application/json; charset={charset}", BOTH)


# -- Content-Encoding --------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_a_plain_body_stays_as_it_is(encoding: str | None) -> None:
    assert decompress(b"{}", encoding, 10) == b"{}"


@encodings
@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_every_member_of_a_compressed_body_is_read(encoding: str, parts: list[bytes]) -> None:
    """`cat a.gz b.gz` is a gzip file, and log shippers send such."""
    body = b"".join(COMPRESS[encoding](part) for part in parts)

    assert decompress(body, encoding.upper(), 1000) == b"".join(parts)


@encodings
def test_the_limit_itself_is_allowed_and_one_byte_more_is_not(encoding: str) -> None:
    compress = COMPRESS[encoding]

    assert decompress(compress(b"x" * 1000), encoding, 1000) == b"x" * 1000
    with pytest.raises(PayloadTooLarge, match="more than 1000 bytes when decompressed"):
        decompress(compress(b"x" * 1001), encoding, 1000)


@encodings
def test_members_count_together_against_the_limit(encoding: str) -> None:
    with pytest.raises(PayloadTooLarge):
        decompress(COMPRESS[encoding](b"x" * 400) * 3, encoding, 1000)


@encodings
def test_a_bomb_costs_no_more_than_the_limit(encoding: str) -> None:
    limit = 100_000
    bomb = COMPRESS[encoding](bytes(30_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, encoding, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 10 * limit


@encodings
@pytest.mark.parametrize("damage", [slice(0, -1), slice(0, 9), slice(1, None)])
def test_a_damaged_body_is_not_taken_for_a_shorter_one(encoding: str, damage: slice) -> None:
    body = COMPRESS[encoding](json.dumps([{"n": n} for n in range(100)]).encode())

    with pytest.raises(MalformedRequest, match=f"not valid {encoding}"):
        decompress(body[damage], encoding, 100_000)


@encodings
def test_a_flood_of_empty_members_costs_nothing(encoding: str) -> None:
    """Each was a copy of all that follows: 20 bytes of gzip cost the whole body."""
    flood = COMPRESS[encoding](b"") * 50_000

    with pytest.raises(MalformedRequest, match="more than 10000 parts"):
        decompress(flood, encoding, 1000)


@encodings
def test_a_large_body_comes_out_whole(encoding: str) -> None:
    """Random bytes, so that it is read in many pieces on both sides."""
    body = random.Random(7).randbytes(300_000)

    assert decompress(COMPRESS[encoding](body), encoding, 300_000) == body


@encodings
def test_rubbish_after_a_compressed_body_is_refused(encoding: str) -> None:
    with pytest.raises(MalformedRequest):
        decompress(COMPRESS[encoding](b"{}") + b"rubbish", encoding, 1000)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "gzip;q=1"])
def test_another_encoding_is_refused_with_what_to_send(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="send gzip, zstd or none"):
        decompress(b"", encoding, 10)


# -- JSON --------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b"nul",
        b"NaN",
        b"-Infinity",
        b'{"a": Infinity}',
        b"01",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} x',
        b"{} {}",
        b'"a\nb"',
        b'"\xff"',
        b'"\xc3"',
        b'"\xed\xa0\x80"',
        rb'"\ud800"',
        rb'{"\udc00": 1}',
        rb'"\u12"',
        BYTE_ORDER_MARK * 2 + b"{}",
        b" " + BYTE_ORDER_MARK + b"{}",
        b"{}" + BYTE_ORDER_MARK,
        BYTE_ORDER_MARK,
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused_with_the_place(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"not valid JSON: .+ at line \d+ column \d+"):
        parse_json(body)


def test_a_byte_order_mark_is_ignored() -> None:
    """Some editors and .NET's writers begin every text with one."""
    for read in (parse_json, parse_single):
        assert read(BYTE_ORDER_MARK + b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    "body", [b'{"a": 1, "a": 2}', b'[{"b": {"a": 1, "c": 0, "a": 1}}]', rb'{"a": 1, "\u0061": 1}']
)
def test_a_key_that_stands_twice_is_refused_at_any_level(body: bytes) -> None:
    """The second value would silently replace the first."""
    with pytest.raises(MalformedRequest, match='duplicate key "a"'):
        parse_json(body)


def test_a_lone_surrogate_is_named() -> None:
    with pytest.raises(MalformedRequest, match="lone surrogate"):
        parse_json(rb'{"a": "\ud83d"}')


def test_numbers_beyond_floats_are_left_to_validation() -> None:
    """They are JSON; the field that holds one is what an answer can name."""
    assert parse_json(b"[1e400, 123456789012345678901234567890]") == [
        float("inf"),
        123456789012345678901234567890,
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).filter(lambda value: "Infinity" not in json.dumps(value))
)
def test_what_json_writes_is_read_again(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

    if b"\xed" not in body:  # the first byte of a surrogate
        assert parse_json(body) == value
    assert parse_json(b"\t\r\n %b \r\n" % json.dumps(None).encode()) is None


@given(st.binary(max_size=30) | st.text('{}[]",:0123456789.eE+-\\udtrfalsn ', max_size=20))
def test_no_bytes_raise_anything_else(body: bytes | str) -> None:
    raw = body if isinstance(body, bytes) else body.encode()
    for read in (parse_json, parse_single, lambda raw: parse_batch(raw, JSON)):
        with contextlib.suppress(MalformedRequest):
            read(raw)
    assert isinstance(parse_batch(raw, NDJSON), list)


def test_an_empty_body_says_what_to_send() -> None:
    with pytest.raises(MalformedRequest, match="send one event as a JSON object"):
        parse_single(b"")


# -- batches -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (JSON, b'{"events": [{"a": 1}, {"a": 2}]}'),
        (JSON, b'[{"a": 1}, {"a": 2}]'),
        (NDJSON, b'{"a": 1}\n{"a": 2}'),
        (NDJSON, b'{"a": 1}\r\n\r\n \t\n{"a": 2}\n\n'),
    ],
)
def test_a_batch_has_three_forms(media: str, body: bytes) -> None:
    assert parse_batch(body, media) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (JSON, b'{"events": [1, 2]}'),
        (JSON, b"[1, 2]"),
        (NDJSON, b"1\n2"),
        (NDJSON, b"\n1\n2\n"),
    ],
)
def test_a_byte_order_mark_before_a_batch_is_ignored(media: str, body: bytes) -> None:
    assert parse_batch(BYTE_ORDER_MARK + body, media) == [1, 2]


def test_a_byte_order_mark_does_not_keep_items_from_being_read_one_by_one() -> None:
    bad, good = parse_batch(BYTE_ORDER_MARK + rb'["\ud83d", 1]', JSON)

    assert isinstance(bad, MalformedRequest)
    assert good == 1


@pytest.mark.parametrize(
    ("media", "body"), [(JSON, b"[]"), (JSON, b'{"events": []}'), (NDJSON, b"\n")]
)
def test_an_empty_batch_is_a_batch_of_nothing(media: str, body: bytes) -> None:
    """What to say to that (422) is not a matter of reading."""
    assert parse_batch(body, media) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"{}", b"7", b'"x"', b'{"events": {}}', b'{"events": null}', b'{"x": []}'],
)
def test_a_body_without_a_list_of_events_says_the_three_forms(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="an array of events, or NDJSON"):
        parse_batch(body, JSON)


def test_an_unknown_field_beside_events_is_named() -> None:
    with pytest.raises(MalformedRequest, match="'source' is not a field of a batch"):
        parse_batch(b'{"source": "crm", "events": []}', JSON)


def test_a_bad_line_refuses_only_itself() -> None:
    first, bad, last = parse_batch(b'{"a": 1}\n{"a": \n{"a": 3}', NDJSON)

    assert (first, last) == ({"a": 1}, {"a": 3})
    assert isinstance(bad, MalformedRequest)


def nested(levels: int) -> bytes:
    """Lists in lists, with brackets in a text that are none."""
    return b"[" * levels + rb'"]\"]"' + b"]" * levels


UNREADABLE = pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (rb'{"a": "cut \ud83d"}', "hex escape"),
        (rb'{"a": "\ude00 cut"}', "surrogate"),
        (b'{"a": {"b": 1, "b": 2}}', 'duplicate key "b"'),
        (nested(300), "recursion limit"),
        (nested(5000), "recursion limit"),
        (b'{"a": {}, "b": ' * 3000 + b"0" + b"}" * 3000, "recursion limit"),
        (b"9" * 5000, "out of range"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": "\xff"}', "unicode"),
        (b'{"a": "\xed\xa0\x80"}', "unicode"),
        (b'{"a": "\x00"}', "control character"),
    ],
    ids=["high", "low", "twice", "300", "5000", "objects", "long", "NaN", "-Infinity", "ff", "ed",
         "NUL"],
)  # fmt: skip


@UNREADABLE
@pytest.mark.parametrize("form", [b"[%b]", b' {\n"events" :\t[ %b ] }\n'])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_item_that_cannot_be_read_refuses_only_itself(
    bad: bytes, reason: str, form: bytes, place: int
) -> None:
    good = ['{"a": "é 😀 ]"}'.encode(), b" 7 \r\n"]
    listed = [*good[:place], bad, *good[place:]]

    items = parse_batch(form % b",".join(listed), JSON)

    error = items.pop(place)
    assert isinstance(error, MalformedRequest)
    assert re.search(f"{reason}.* at line 1 column", str(error))
    assert items == [{"a": "é 😀 ]"}, 7]


@UNREADABLE
def test_an_item_and_a_line_are_refused_in_the_same_words(bad: bytes, reason: str) -> None:
    (item,), (line,) = parse_batch(b"[%b]" % bad, JSON), parse_batch(bad, NDJSON)

    assert str(item) == str(line)


def test_an_item_as_deep_as_one_may_be_is_read_inside_a_list_too() -> None:
    assert parse_batch(b'{"events": [%b]}' % nested(200), JSON) == [parse_json(nested(200))]


@pytest.mark.parametrize(
    "around",
    [
        b"[%b",
        b"[%b}",
        b"[%b,]",
        b"[,%b]",
        b"[%b 1]",
        b"[%b]]",
        b"[%b] x",
        b"[%b, {]",
        b'{"events": [%b]',
        b'{"events": [%b]]',
        b'{"events": [%b]}}',
        b'{"events": [%b], "events": []}',
        b'{"events" [%b]}',
        b'{"more": [%b]}',
    ],
)
@pytest.mark.parametrize("bad", [rb'"\ud83d"', nested(300), nested(5000), b"[" * 5000, b'["'])
def test_a_list_that_is_not_json_is_refused_as_a_whole(around: bytes, bad: bytes) -> None:
    """Where an item ends would be a guess."""
    with pytest.raises(MalformedRequest, match="not valid JSON"):
        parse_batch(around % bad, JSON)


def test_a_flood_of_items_is_refused_where_one_cannot_be_read() -> None:
    body = rb'["\ud83d"' + b",1" * MAX_BATCH_EVENTS + b"]"

    with pytest.raises(PayloadTooLarge, match="more than 10000 events"):
        parse_batch(body, JSON)


def test_a_flood_of_brackets_is_not_followed_to_its_end() -> None:
    deep = b"[" * 2000 + b",".join([b"[]"] * 600_000) + b"]" * 2000

    with pytest.raises(MalformedRequest, match="recursion limit"):
        parse_batch(b"[%b, 1]" % deep, JSON)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_items_end_where_they_end(value: Any) -> None:
    text = json.dumps(value).encode()

    assert list(items_of(b"[%b, %b]" % (text, text))) == [text, text]


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    """
    U+2028 may stand in a JSON string as it is, and CR between its tokens. A line that
    were cut there would be refused twice.
    """
    in_string = json.dumps({"a": f"x{separator}y"}, ensure_ascii=separator < " ").encode()

    assert parse_batch(in_string + b"\n[1,\r2]", NDJSON) == [{"a": f"x{separator}y"}, [1, 2]]


@pytest.mark.parametrize("media", BOTH)
def test_ten_thousand_events_are_a_batch_and_one_more_is_too_many(media: str) -> None:
    def body(count: int) -> bytes:
        return b"1\n" * count if media == NDJSON else json.dumps([1] * count).encode()

    assert len(parse_batch(body(MAX_BATCH_EVENTS), media)) == 10_000
    with pytest.raises(PayloadTooLarge, match="more than 10000 events") as refused:
        parse_batch(body(MAX_BATCH_EVENTS + 1), media)
    assert refused.value.status == 413


def test_a_flood_of_bad_lines_is_refused_before_it_is_read() -> None:
    """64 MiB of "x" lines would be a GiB of errors."""
    flood = b"x\n" * 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            parse_batch(flood, NDJSON)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", False),
        ("", False),
    ],
)
def test_a_trace_context_that_is_none_is_passed_over(value: str, is_one: bool) -> None:
    assert trace_context(value) == (value if is_one else None)


def test_most_requests_have_no_trace_context() -> None:
    assert trace_context(None) is None
