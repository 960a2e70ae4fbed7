"""
Where the items of a batch are, when the batch as a whole cannot be read.

A strict parser gives up at the first value that it will not take: half a surrogate pair,
a key that stands twice, brackets too deep, NaN. JSON by its form is such a body all the
same, so it is certain where each item ends, and each can be read by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

#: Only looks at the form: what it builds is thrown away, and ``bool`` is built in C.
_FORM = json.JSONDecoder(
    object_pairs_hook=bool, parse_int=bool, parse_float=bool, parse_constant=bool, strict=False
)
_OPENING = re.compile(r'[ \t\r\n]*(\{[ \t\r\n]*"events"[ \t\r\n]*:[ \t\r\n]*)?\[[ \t\r\n]*')
_AFTER_ITEM = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")
#: What stands before brackets of one direction, and the brackets.
_BRACKETS = re.compile(r'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+([\[{]++|[\]}]++)', re.DOTALL)
#: Looked at in items that are too deep for ``_FORM``, in all: half a second of work.
_MAX_RUNS = 1_000_000


def items_of(body: bytes) -> Iterator[bytes]:
    """
    The text of each item of ``{"events": [...]}`` or of an array, in order.

    Raises:
        ValueError: Where it turns out that the body is not JSON, or another value.
    """
    text = body.decode("latin-1")  # a character for each byte: places are the same in both
    opening = _OPENING.match(text)
    if opening is None:
        raise ValueError("there is no list")
    runs = iter(range(_MAX_RUNS))
    at = opening.end()
    more = True
    while more:
        end = _end_of_item(text, at, runs)
        yield body[at:end]
        after = _AFTER_ITEM.match(text, end)
        if after is None:
            raise ValueError("an item is not followed by another, nor by the end of the list")
        at = after.end()
        more = after[1] == ","
    if text[at:].rstrip(" \t\r\n") != ("}" if opening[1] else ""):
        raise ValueError("something follows the list")


def _end_of_item(text: str, at: int, runs: Iterator[int]) -> int:
    try:
        return _FORM.raw_decode(text, at)[1]
    except RecursionError:
        return _end_of_brackets(text, at, runs)


def _end_of_brackets(text: str, at: int, runs: Iterator[int]) -> int:
    """Where the bracket that begins there is closed. Nobody will take what is inside."""
    level = 0
    for _ in runs:
        found = _BRACKETS.match(text, at)
        if found is None:
            break
        brackets = found[1]
        if brackets[0] in "[{":
            level += len(brackets)
        elif level <= len(brackets):
            return found.start(1) + level
        else:
            level -= len(brackets)
        at = found.end()
    raise ValueError("brackets are not closed")
