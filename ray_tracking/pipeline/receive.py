"""
Reading a request body: bytes in, JSON values out, or one clear reason why not.

JSON is read strictly: UTF-8, no NaN or Infinity, no lone surrogates, at most 200
levels, and no object with the same key twice, because the second value would
silently replace the first. A byte order mark at the start of a body is ignored, as
RFC 8259 allows.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jiter
import zstandard

from ray_tracking.errors import MalformedRequest, PayloadTooLarge, UnsupportedMedia
from ray_tracking.events import MAX_BATCH_EVENTS
from ray_tracking.pipeline.items import items_of

MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BODY_BYTES = 16 * 1024 * 1024
MAX_DECOMPRESSED_BYTES = 64 * 1024 * 1024

JSON = "application/json"
NDJSON = "application/x-ndjson"

_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
#: The largest that HTTP allows (RFC 9659): a decoder sets so much aside for one frame.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 16 * 1024
_WHITE_SPACE = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def trace_context(value: str | None) -> str | None:
    """
    The ``traceparent`` of a request (W3C Trace Context), or None where it has none.

    One that is not well-formed is passed over: a request is never refused for it.
    """
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None


def is_sampled(traceparent: str | None) -> bool:
    """Whether whoever sent it records its trace, and asks others to (its ``sampled`` flag)."""
    return traceparent is not None and bool(int(traceparent[-2:], 16) & 1)


def media_type(content_type: str | None, accepted: Sequence[str]) -> str:
    """
    Return the accepted media type that a Content-Type header names.

    Raises:
        UnsupportedMedia: For every other type or charset; the text names the header to send.
    """
    if content_type is not None and content_type in accepted:
        return content_type
    essence, _, parameters = (content_type or "").partition(";")
    essence = essence.strip().lower()
    wanted = " or ".join(f"Content-Type: {name}" for name in accepted)
    if essence not in accepted:
        got = f"{essence!r} is not read here" if essence else "the body has no type"
        raise UnsupportedMedia(f"{got}; send {wanted}")
    charset = parameters.lower().replace(" ", "").replace('"', "").partition("charset=")[2]
    if charset and charset.partition(";")[0] not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia(f"charset {charset!r} is not read here; send UTF-8")
    return essence


def decompress(body: bytes, encoding: str | None, limit_bytes: int) -> bytes:
    """
    Undo a Content-Encoding of gzip or zstd.

    Raises:
        PayloadTooLarge: As soon as more than ``limit_bytes`` have come out, so
            that a bomb costs no more than the limit.
        MalformedRequest: If the body is not what the header says.
        UnsupportedMedia: For another encoding.
    """
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return body
    try:
        if name in ("gzip", "x-gzip"):
            return _gunzip(body, limit_bytes)
        if name == "zstd":
            return _unzstd(body, limit_bytes)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise MalformedRequest(f"the body is not valid {name}: {error}") from None
    raise UnsupportedMedia(f"Content-Encoding {name!r} is not read here; send gzip, zstd or none")


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    room = limit_bytes + 1

    def inflate(member: Any, piece: memoryview) -> bytes:
        nonlocal room
        part: bytes = member.decompress(piece, room)
        room -= len(part)
        if not room:
            raise _too_large(limit_bytes)
        return part

    return b"".join(_inflated(body, lambda: zlib.decompressobj(_GZIP_WINDOW_BITS), inflate))


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    # One object stops at a limit and takes a frame that is cut off for one that is short;
    # the other knows the end of a frame and no limit. So the first measures for the second.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    size = 0
    with decompressor.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        while piece := reader.read(_PIECE_BYTES):
            size += len(piece)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
    return b"".join(
        _inflated(body, decompressor.decompressobj, lambda frame, piece: frame.decompress(piece))
    )


def _inflated(
    body: bytes, begin: Callable[[], Any], inflate: Callable[[Any, memoryview], bytes]
) -> Iterator[bytes]:
    """
    Every member of a gzip file, or frame of a zstd one.

    Piece by piece, because what follows a member in its piece is copied.
    """
    view = memoryview(body)
    at = members = 0
    while at < len(view):
        member = begin()
        members += 1
        if members > MAX_BATCH_EVENTS:
            raise EOFError(f"it has more than {MAX_BATCH_EVENTS} parts")
        while not member.eof:
            piece = view[at : at + _PIECE_BYTES]
            if not piece:
                raise EOFError("it ends in the middle")
            yield inflate(member, piece)
            at += len(piece) - len(member.unused_data)


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than {limit_bytes} bytes when decompressed")


def parse_json(body: bytes) -> Any:
    """
    Read one JSON value.

    Raises:
        MalformedRequest: With the reason and the place.
    """
    return _parse(body.removeprefix(_BYTE_ORDER_MARK))


def _parse(body: bytes) -> Any:
    try:
        return jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
        if "hex escape" in reason:
            reason += " (a lone surrogate, or a broken \\u escape)"
        raise MalformedRequest(f"the body is not valid JSON: {reason}") from None


def parse_single(body: bytes) -> Any:
    """The one event of ``POST /events``, still to be validated."""
    if not body:
        raise MalformedRequest("the body is empty; send one event as a JSON object")
    return parse_json(body)


def parse_batch(body: bytes, media: str) -> list[Any]:
    """
    The items of ``POST /events/batch``, each still to be validated.

    A line of NDJSON that cannot be read becomes a :class:`MalformedRequest` in its
    place in the list, so that it refuses nobody else; so does an item of a list, if
    it is certain where it ends.

    Raises:
        MalformedRequest: If there is no list of events to be found.
        PayloadTooLarge: If there are more than 10,000.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if media == NDJSON:
        # Only LF ends a line: CR is white space, in NDJSON as in JSON.
        items: Any = _parse_each(io.BytesIO(body))
    else:
        try:
            value = _parse(body) if body else None
        except MalformedRequest as error:
            try:
                return _parse_each(items_of(body))
            except ValueError:
                raise error from None
        items = value.get("events") if isinstance(value, dict) else value
        if not isinstance(items, list):
            raise MalformedRequest(
                'the body must be {"events": [...]}, an array of events, or NDJSON'
            )
        if isinstance(value, dict) and len(value) > 1:
            extra = next(key for key in value if key != "events")
            raise MalformedRequest(f"{extra!r} is not a field of a batch; it has only 'events'")
    found: list[Any] = items
    if len(found) > MAX_BATCH_EVENTS:
        raise _too_many()
    return found


def _parse_each(texts: Iterable[bytes]) -> list[Any]:
    """The value of each text that has one, or why it cannot be read."""
    items: list[Any] = []
    for text in texts:
        if not text.strip(_WHITE_SPACE):
            continue
        if len(items) == MAX_BATCH_EVENTS:
            raise _too_many()
        try:
            items.append(_parse(text))
        except MalformedRequest as error:
            items.append(error)
    return items


def _too_many() -> PayloadTooLarge:
    return PayloadTooLarge(f"the batch has more than {MAX_BATCH_EVENTS} events")
