"""
Who may be connected, and how long a client may take: decisions, which the listener carries out.

A client that sends its request byte by byte, or does not read its answer, costs a connection and
nothing else, and not for long. What it may cost is bounded in bytes as well: a head and a body
that never end are cut off while they come in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

#: Of a request line and its headers, together.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
#: Of a whole request as it comes over the wire, chunk by chunk, whatever a handler reads of it.
MAX_REQUEST_BYTES = 64 * 1024 * 1024


class Phase(Enum):
    """What a connection is waiting for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    BUSY = "our answer"
    STUCK = "the client to read our answer"


@dataclass(frozen=True, slots=True)
class ConnectionPolicy:
    """How many connections one listener has, and how long a client may take."""

    max_connections: int = 10_000
    max_per_client: int = 1000
    idle_s: float = 75.0
    head_s: float = 10.0
    #: A body may take so long, and longer where it comes at this rate.
    body_s: float = 20.0
    body_bytes_per_s: float = 1024.0
    stuck_s: float = 60.0

    def is_overdue(self, phase: Phase, for_s: float, came_bytes: int) -> bool:
        """
        Whether a client has had its time.

        Args:
            phase: What it was seen in all the while.
            for_s: For how long.
            came_bytes: What it has sent meanwhile.
        """
        match phase:
            case Phase.IDLE:
                return for_s > self.idle_s
            case Phase.HEAD:
                return for_s > self.head_s
            case Phase.BODY:
                return for_s > self.body_s + came_bytes / self.body_bytes_per_s
            case Phase.STUCK:
                return for_s > self.stuck_s
        return False


def is_local(address: str) -> bool:
    """Whether somebody on this machine is meant, who may speak for many."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Peers:
    """
    How many connections each address has.

    Args:
        most: How many it may have.
        is_exempt: Whose are not counted: proxies speak for many.
    """

    def __init__(self, most: int, is_exempt: Callable[[str], bool] = is_local) -> None:
        self._most = most
        self._is_exempt = is_exempt
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def enter(self, address: str) -> bool:
        """Count one more, unless there are as many as there may be."""
        if self._is_exempt(address):
            return True
        count = self._counts.get(address, 0)
        if count >= self._most:
            return False
        self._counts[address] = count + 1
        return True

    def leave(self, address: str) -> None:
        """One that was counted has gone."""
        if self._is_exempt(address):
            return
        count = self._counts.get(address, 0) - 1
        if count > 0:
            self._counts[address] = count
        else:
            self._counts.pop(address, None)
