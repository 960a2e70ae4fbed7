"""
One question, asked until it is answered, or given up: decided without I/O.

Every question may be asked again, because the service recognises what it was told before: an
event by its ``eventId``, or by what it says where it has none; a replay by its key. It does so
for its ``idempotency_window``, so all attempts together take less than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
import orjson

from ray_tracking.errors import Unreachable
from ray_tracking.pipeline.backoff import Backoff

#: Less than the shortest idempotency window of the shipped configurations, which is 10 s.
RETRY_FOR_S = 9.0
_ANSWER_WITHIN_S = 10.0
#: An attempt gets so long also where little of all the time is left.
_SHORTEST_ATTEMPT_S = 1.0
_BACKOFF = Backoff(first_s=0.1, longest_s=2.0)
#: Come again; and what a proxy says while the service is not there.
_FOR_NOW = frozenset({429, 500, 502, 503, 504})

T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One request; the path is quoted, and may have a query."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}
    #: How long the answer may take.
    within_s: float = _ANSWER_WITHIN_S


class Response(msgspec.Struct, frozen=True, array_like=True):
    """What came back, as it is."""

    status: int
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """An answer of the service."""

    status: int
    value: dict[str, Any]
    #: In how many seconds the same may succeed, if the service said so.
    retry_after_s: int | None = None

    @property
    def is_for_now(self) -> bool:
        """Whether the same may be answered otherwise later."""
        return self.status in _FOR_NOW


class Failed(NamedTuple):
    """There is no answer: nobody is there, or it took too long."""

    reason: str


class Pause(NamedTuple):
    """Do nothing for a while."""

    seconds: float


#: Yields what to do next, gets what came of it, returns the result.
Plan = Generator[Request | Pause, Reply | Failed | None, T]


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long it is tried.

    Args:
        retry_for_s: All attempts of a question together; 0 for a single one.
        clock: Seconds, never going back.
        random: Draws from [0, 1).
    """

    retry_for_s: float
    clock: Callable[[], float]
    random: Callable[[], float]

    def begin(self) -> Attempts:
        """The attempts of one question."""
        return Attempts(self)


class Attempts:
    """Those of one question."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._until_s = patience.clock() + patience.retry_for_s
        self._number = 0

    def timed(self, request: Request) -> Request:
        """The request with the time that it may take now."""
        left_s = self._until_s - self._patience.clock()
        within_s = min(request.within_s, max(_SHORTEST_ATTEMPT_S, left_s))
        return msgspec.structs.replace(request, within_s=within_s)

    def pause(self, at_least_s: float | None) -> Pause | None:
        """
        How long to wait before the next attempt; None to give up.

        Args:
            at_least_s: What the service said.
        """
        wait_s = _BACKOFF.wait_s(self._number, self._patience.random()) + (at_least_s or 0)
        self._number += 1
        if self._patience.clock() + wait_s >= self._until_s:
            return None
        return Pause(wait_s)


def ask(request: Request, patience: Patience, lasts: str | None = None) -> Plan[Reply]:
    """
    The answer that lasts, or the last one that there was time for.

    Args:
        request: What is asked.
        patience: For how long.
        lasts: A name that only an answer that lasts has, whatever its status.

    Raises:
        Unreachable: If the last attempt got none.
    """
    attempts = patience.begin()
    while True:
        said = yield attempts.timed(request)
        assert said is not None
        if isinstance(said, Reply) and (not said.is_for_now or lasts in said.value):
            return said
        pause = attempts.pause(said.retry_after_s if isinstance(said, Reply) else None)
        if pause is None:
            if isinstance(said, Failed):
                raise Unreachable(said.reason)
            return said
        yield pause


def read(response: Response) -> Reply | Failed:
    """What a response says; none of this service's is as good as none."""
    try:
        value = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        return Failed(f"it answered {response.status}, but not as this service does")
    return Reply(response.status, value, _seconds(response.headers))


def _seconds(headers: Mapping[str, str]) -> int | None:
    text = next((text for name, text in headers.items() if name.lower() == "retry-after"), None)
    try:
        # A proxy may send a date; then it is our own backoff.
        return max(0, math.ceil(float(text))) if text is not None else None
    except (ValueError, OverflowError):
        return None
