"""What a client was told: each request of an open loop, written down to be judged later."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import orjson

#: Instead of a status: the connection broke, or nothing came for too long.
NO_ANSWER = 0
#: Instead of a status: every connection was taken.
NOT_SENT = -1

_REFUSED = (429, 503)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *([0-9]+)\r\n", re.IGNORECASE)
_DURABLE = re.compile(rb"\r\nx-tracking-durable: 1\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """What became of one request. Times are of ``time.perf_counter``, in all processes."""

    #: ``event``, ``batch`` or ``pixel``.
    kind: str
    #: Its events have the numbers from here on.
    first: int
    events: int
    #: When it was to go out, and how long after that its answer had come.
    due_s: float
    took_s: float
    status: int
    #: All of its events but the refused are durable: the service has said so.
    acknowledged: bool = False
    #: Which of an acknowledged batch are not; counted from its first.
    refused: Sequence[int] = ()
    #: Durable in the spool, not in the log.
    fallback: bool = False
    #: Refused, and not told when to come again.
    no_retry_after: bool = False

    @property
    def ok(self) -> bool:
        """A 2xx."""
        return 200 <= self.status < 300

    def numbers(self) -> Sequence[int]:
        """Of the events that are acknowledged."""
        if not self.acknowledged:
            return ()
        everything = range(self.first, self.first + self.events)
        if not self.refused:
            return everything
        refused = set(self.refused)
        return [number for number in everything if number - self.first not in refused]


def judge(asked: Answer, took_s: float, status: int, head: bytes, body: bytes) -> Answer:
    """The request with its answer."""
    known: dict[str, Any] = {"took_s": took_s, "status": status}
    if status in _REFUSED:
        wait = _RETRY_AFTER.search(head)
        known["no_retry_after"] = wait is None or int(wait[1]) < 1
    elif asked.kind == "pixel":
        known["acknowledged"] = _DURABLE.search(head) is not None
    elif status == 207:
        errors = orjson.loads(body)["errors"]
        waits = [error.get("retryAfter") for error in errors]
        known["acknowledged"] = True
        known["refused"] = [error["index"] for error in errors]
        known["no_retry_after"] = not all(isinstance(wait, int) and wait >= 1 for wait in waits)
    elif status in (200, 202):
        known["acknowledged"] = True
        known["fallback"] = b'"fallback":true' in body
    return asked._replace(**known)


def read(file: Path) -> list[Answer]:
    """All that was written down."""
    with file.open("rb") as lines:
        return [_answer(*orjson.loads(line)) for line in lines]


def _answer(*values: Any) -> Answer:
    answer = Answer(*values)
    # JSON has no infinity.
    return answer._replace(took_s=math.inf) if answer.took_s is None else answer


def write_line(answer: Answer) -> bytes:
    """As :func:`read` takes it."""
    return orjson.dumps(tuple(answer)) + b"\n"


def acknowledged(answers: Iterable[Answer]) -> Iterator[int]:
    """The numbers of all events that are."""
    for answer in answers:
        yield from answer.numbers()


def percent(part: Iterable[Answer], whole: Sequence[Answer]) -> float:
    """Requests in a part, of those in the whole."""
    return 100 * sum(1 for _ in part) / len(whole) if whole else math.nan


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


async def compare_rows(database_url: str, numbers: Iterable[int]) -> tuple[int, int]:
    """
    Put what was acknowledged beside what is in Postgres, event by event.

    Returns:
        How many acknowledged events are no row, and how many events are several rows.
    """
    database = await asyncpg.connect(database_url)
    try:
        # Every event of the load generators has a lead of its own, named by its number.
        found = await database.fetch(
            "SELECT substr(lead_id, 6)::bigint FROM events WHERE lead_id LIKE 'lead-%'"
        )
    finally:
        await database.close()
    rows = Counter(row[0] for row in found)
    missing = sum(number not in rows for number in numbers)
    return missing, sum(count > 1 for count in rows.values())
