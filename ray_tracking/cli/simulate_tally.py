"""What became of a simulation's events: the counts, and the table at the end."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ray_tracking.events import EventType
from ray_tracking.sources.simulation import Via


@dataclass
class Tally:
    """
    Counts of events; none of them is a count of requests.

    Every event that was started ends in one of ``accepted``, ``duplicates``,
    ``unconfirmed``, ``invalid`` or ``given_up``. The rest counts tries that failed.
    """

    started: Counter[tuple[EventType, Via]] = field(default_factory=Counter)
    accepted: int = 0
    #: Known already: repeats of ours, and retries of what had arrived at the first try.
    duplicates: int = 0
    #: Hits that were answered before they were known to be durable.
    unconfirmed: int = 0
    invalid: int = 0
    given_up: int = 0

    rate_limited: int = 0
    overloaded: int = 0
    #: No answer, or one that means nothing to us.
    failed: int = 0

    #: From the moment an event was due to the answer, or of a retry from its beginning.
    latencies_s: dict[Via, array[float]] = field(default_factory=dict)
    #: The first few reasons why something was invalid or failed.
    reasons: list[str] = field(default_factory=list)

    def answered(self, via: Via, took_s: float) -> None:
        """A request has had an answer that settles something."""
        self.latencies_s.setdefault(via, array("d")).append(took_s)

    def because(self, reason: str) -> None:
        """Keep a reason, if it is a new one."""
        if reason not in self.reasons and len(self.reasons) < 5:
            self.reasons.append(reason)

    @property
    def total(self) -> int:
        """Events started."""
        return self.started.total()

    @property
    def settled(self) -> int:
        """Events of which the end is known."""
        known = self.accepted + self.duplicates + self.unconfirmed
        return known + self.invalid + self.given_up

    @property
    def arrived(self) -> bool:
        """Whether the service took anything at all."""
        return self.accepted + self.duplicates + self.unconfirmed > 0

    def line(self, elapsed_s: float) -> str:
        """How it goes, in one line."""
        return (
            f"{elapsed_s:.0f} s: {self.total:,} sent, {self.accepted:,} accepted, "
            f"{self.duplicates:,} duplicates, {self.total - self.settled:,} open, "
            f"{self.rate_limited:,} rate limited, {self.overloaded:,} overloaded, "
            f"{self.failed:,} failed"
        )

    def summary(self, elapsed_s: float, asked_per_s: float) -> str:
        """The table at the end."""
        return "\n".join(self._summary(elapsed_s, asked_per_s))

    def _summary(self, elapsed_s: float, asked_per_s: float) -> Iterator[str]:
        ways: tuple[Via, ...] = ("events", "batch", "pixel", "click")
        yield f"{'sent':<26}{'all':>9}" + "".join(f"{via:>9}" for via in ways)
        for event_type in EventType:
            counts = [self.started[event_type, via] for via in ways]
            if any(counts):
                cells = "".join(f"{count or '-':>9}" for count in counts)
                yield f"  {event_type:<24}{sum(counts):>9,}{cells}"
        yield f"  {'in all':<24}{self.total:>9,}"
        yield "became"
        yield _row("accepted", self.accepted)
        yield _row("duplicates", self.duplicates)
        yield _row("unconfirmed", self.unconfirmed, "hits answered before they were durable")
        yield _row("invalid", self.invalid)
        yield _row("given up", self.given_up + self.total - self.settled)
        yield "tries that failed"
        yield _row("rate limited", self.rate_limited)
        yield _row("overloaded", self.overloaded)
        yield _row("connection", self.failed)
        yield f"{'latency, ms':<26}{'p50':>9}{'p99':>9}"
        for via in ways:
            if latencies := self.latencies_s.get(via):
                ordered = sorted(latencies)
                p50, p99 = (percentile(ordered, share) * 1000 for share in (0.5, 0.99))
                yield f"  {via:<24}{p50:>9.1f}{p99:>9.1f}"
        rate = self.total / elapsed_s if elapsed_s else 0.0
        yield f"rate: {rate:,.1f} events/s for {elapsed_s:.1f} s (asked for {asked_per_s:,g})"
        for reason in self.reasons:
            yield f"reason: {reason}"


def percentile(ordered: list[float], share: float) -> float:
    """The value that a share of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _row(name: str, count: int, note: str = "") -> str:
    return f"  {name:<24}{count:>9,}" + (f"   {note}" if note and count else "")
