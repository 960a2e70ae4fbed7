"""
What the clients remember: every event that they sent, and every answer to it.

Plain data, so that a history can also be written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Place(NamedTuple):
    """Where an event stands in the log, and so where its row stands."""

    partition: int
    lane: str
    epoch: int
    seq: int
    index: int


class Ack(NamedTuple):
    """
    One answer that says: it is durable.

    ``place`` is None where the answer names none: batches, hits, and the spool
    (``fallback``), which comes late.
    """

    at_s: float
    duplicate: bool = False
    place: Place | None = None
    fallback: bool = False


@dataclass(slots=True)
class Sent:
    """
    One event.

    Args:
        key: Its ``eventId``; of a hit its type, campaign, lead and mail.
        client: Who sent it. A client that is ``in_turn`` began its next turn only when
            everything of the one before was acknowledged.
        turn: Which request of the client it was in.
        index: Where it stood in that request.
    """

    key: str
    campaign: str
    client: str
    turn: int
    index: int = 0
    in_turn: bool = True
    first_s: float = 0.0
    last_s: float = 0.0
    attempts: int = 0
    acks: list[Ack] = field(default_factory=list)


class Row(NamedTuple):
    """One row of ``events``; ``key`` as in :class:`Sent`."""

    key: str
    campaign: str
    event_id: str
    place: Place


class Letter(NamedTuple):
    """One dead letter; ``key`` as in :class:`Sent`."""

    key: str
    event_id: str
    status: str


class Loss(NamedTuple):
    """
    A log that lost what it had acknowledged, as a server does whose disk is replaced.

    What was acknowledged before ``until_s``, when an operator had accepted the gap, may be
    gone; what was acknowledged later may not.
    """

    from_s: float
    until_s: float


@dataclass
class History:
    """Everything that happened in front of the service."""

    events: dict[str, Sent] = field(default_factory=dict)
    #: Answers that no answer may look like, as they came in.
    improper: list[str] = field(default_factory=list)
    #: Faults after which no event was taken in time, or that left a backlog behind.
    stuck: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    #: What live clients were shown and should not have been.
    misled: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """How many events have at least one acknowledgement."""
        return sum(1 for sent in self.events.values() if sent.acks)
