"""
Reading a request body: bytes in, JSON values out, or one clear reason why not.

JSON is read strictly: UTF-8, no NaN or Infinity, no lone surrogates, at most 200
levels, and no object with the same key twice, because the second value would
silently replace the first.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from typing import Any

import jiter
import zstandard

from ray_tracking.errors import MalformedRequest, PayloadTooLarge, UnsupportedMedia
from ray_tracking.events import MAX_BATCH_EVENTS

MAX_BODY_BYTES = 1024 * 1024
MAX_BATCH_BODY_BYTES = 16 * 1024 * 1024
MAX_DECOMPRESSED_BYTES = 64 * 1024 * 1024

JSON = "application/json"
NDJSON = "application/x-ndjson"

_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS


def media_type(content_type: str | None, accepted: Iterable[str]) -> str:
    """
    Return the accepted media type that a Content-Type header names.

    Raises:
        UnsupportedMedia: For every other type or charset; the text names the header to send.
    """
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
            plain = _gunzip(body, limit_bytes)
        elif name == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(
                io.BytesIO(body), read_across_frames=True
            ) as reader:
                plain = reader.read(limit_bytes + 1)
        else:
            raise UnsupportedMedia(
                f"Content-Encoding {name!r} is not read here; send gzip, zstd or none"
            )
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise MalformedRequest(f"the body is not valid {name}: {error}") from None
    if len(plain) > limit_bytes:
        raise PayloadTooLarge(f"the body has more than {limit_bytes} bytes when decompressed")
    return plain


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    """Every member of a gzip file, up to one byte more than the limit."""
    parts: list[bytes] = []
    size = 0
    while body and size <= limit_bytes:
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        part = member.decompress(body, limit_bytes + 1 - size)
        size += len(part)
        parts.append(part)
        if not member.eof:
            if size <= limit_bytes:
                raise EOFError("it ends in the middle")
            break
        body = member.unused_data
    return b"".join(parts)


def parse_json(body: bytes) -> Any:
    """
    Read one JSON value.

    Raises:
        MalformedRequest: With the reason and the place.
    """
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

    A line of NDJSON that is not JSON becomes a :class:`MalformedRequest` in its
    place in the list, so that it refuses nobody else.

    Raises:
        MalformedRequest: If there is no list of events to be found.
        PayloadTooLarge: If there are more than 10,000.
    """
    if media == NDJSON:
        items: Any = [_parse_line(line) for line in body.splitlines() if line.strip()]
    else:
        value = parse_json(body) if body else None
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
        raise PayloadTooLarge(f"the batch has {len(items)} events; the limit is {MAX_BATCH_EVENTS}")
    return found


def _parse_line(line: bytes) -> Any:
    try:
        return parse_json(line)
    except MalformedRequest as error:
        return error
