"""
The rate limit of one partition's campaigns: at most N events in *any* window.

Counts stand in slots of a hundredth of the window. A slot counts until all of it has
left the window, so the promise holds for every window, at the price of letting go up
to one slot late.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

SLOTS_PER_WINDOW = 100
BURST_WINDOW_MS = 1000


@dataclass(frozen=True, slots=True)
class CampaignLimits:
    """What one campaign may send; None: as much as the others."""

    max_events: int | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """How many events a campaign may send in a window, and how many single ones in a second."""

    max_events: int = 10_000
    window_ms: int = 60_000
    burst: int = 500
    #: The campaigns that have limits of their own.
    campaigns: Mapping[str, CampaignLimits] = field(default_factory=dict, hash=False)

    def of(self, key: str) -> tuple[int, int]:
        """The two limits of a campaign: in a window, and single events in a second."""
        own = self.campaigns.get(key)
        if own is None:
            return self.max_events, self.burst
        return own.max_events or self.max_events, own.burst or self.burst


def slot_ms_of(window_ms: int) -> int:
    """How long the slots of a window are: events in one of them are counted together."""
    return max(1, window_ms // SLOTS_PER_WINDOW)


@dataclass(slots=True)
class Sliding:
    """How many in the last ``window_ms``, in slots: ``[start, count]``, oldest first."""

    window_ms: int
    total: int = 0
    slots: deque[list[int]] = field(default_factory=deque)
    #: By so much later than they were, at most, some stand that were charged to another window.
    late_ms: int = 0
    slot_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self.slot_ms = slot_ms_of(self.window_ms)

    def expire(self, now_ms: int) -> None:
        slots = self.slots
        if slots and slots[0][0] <= (horizon := now_ms - self.window_ms - self.slot_ms):
            while slots and slots[0][0] <= horizon:
                self.total -= slots.popleft()[1]

    def add(self, at_ms: int, count: int) -> bool:
        """Whether it is the first of its slot."""
        start = at_ms - at_ms % self.slot_ms
        slots = self.slots
        self.total += count
        place = len(slots)
        while place and slots[place - 1][0] > start:
            place -= 1
        if place and slots[place - 1][0] == start:
            slots[place - 1][1] += count
            return False
        slots.insert(place, [start, count])
        return True

    def refund(self, at_ms: int) -> None:
        start = at_ms - at_ms % self.slot_ms
        for slot in self.slots:
            if start <= slot[0] <= start + self.late_ms and slot[1]:
                slot[1] -= 1
                self.total -= 1
                return

    def over(self, window_ms: int) -> Sliding:
        """The same events in a window of another length, as late as they may have been."""
        other = Sliding(window_ms, late_ms=self.late_ms + self.slot_ms)
        for start, count in self.slots:
            other.add(start + self.slot_ms - 1, count)
        return other

    def wait_ms(self, limit: int, now_ms: int) -> int:
        """How long until one more fits under the limit; 0 when it does now."""
        surplus = self.total + 1 - limit
        if surplus <= 0:
            return 0
        for start, count in self.slots:
            surplus -= count
            if surplus <= 0:
                return max(1, start + self.slot_ms + self.window_ms - now_ms)
        return self.window_ms


class RateLimits:
    """
    The rates of all campaigns of one partition.

    Args:
        policy: The limits.
    """

    def __init__(self, policy: RatePolicy) -> None:
        self._policy = policy
        # In the order of their last slots: an idle campaign is the same as none, and is
        # forgotten.
        self._rates: OrderedDict[str, tuple[Sliding, Sliding]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rates)

    def change(self, policy: RatePolicy) -> None:
        """Go by other limits from now on; what was charged stays charged."""
        self._policy = policy

    def charge(self, key: str, *, single: bool, now_ms: int) -> float:
        """
        Take one event of a campaign's budget, or say in how many seconds there will be one.

        Returns:
            0 when the event was charged; otherwise nothing was.
        """
        max_events, max_burst = self._policy.of(key)
        window, burst = self._of(key)
        window.expire(now_ms)
        wait_ms = 0
        if window.total >= max_events:
            wait_ms = window.wait_ms(max_events, now_ms)
        if single:
            burst.expire(now_ms)
            if burst.total >= max_burst:
                wait_ms = max(wait_ms, burst.wait_ms(max_burst, now_ms))
        if wait_ms:
            return wait_ms / 1000
        if window.add(now_ms, 1):
            self._rates.move_to_end(key)
        if single:
            burst.add(now_ms, 1)
        return 0.0

    def charge_all(self, events: Mapping[str, int], *, single: bool, now_ms: int) -> bool:
        """
        Charge so many events of each campaign, where all of them fit; otherwise nothing is.

        Args:
            events: How many, by campaign.
            single: Whether each of them came alone.
            now_ms: Unix time by a clock that never goes back.
        """
        found = []
        for key, count in events.items():
            max_events, max_burst = self._policy.of(key)
            window, burst = self._of(key)
            window.expire(now_ms)
            if window.total + count > max_events:
                return False
            if single:
                burst.expire(now_ms)
                if burst.total + count > max_burst:
                    return False
            found.append((key, count, window, burst))
        for key, count, window, burst in found:
            if window.add(now_ms, count):
                self._rates.move_to_end(key)
            if single:
                burst.add(now_ms, count)
        return True

    def refund(self, key: str, *, single: bool, at_ms: int) -> None:
        """
        Give back the charge of an event that did not reach the log.

        Args:
            key: Whose.
            single: As it was charged.
            at_ms: When it was charged: taken from any other moment, the charge would
                leave room for too many in the window around that one.
        """
        window, burst = self._of(key)
        window.refund(at_ms)
        if single:
            burst.refund(at_ms)

    def restore(self, key: str, *, at_ms: int, now_ms: int) -> None:
        """
        Charge an event that an earlier owner admitted.

        Its age is clamped to the window and the debt to the limit, so that a clock
        that was set back cannot shut a campaign out for longer than one window.
        """
        window, _ = self._of(key)
        at_ms = min(at_ms, now_ms)
        fits = window.total < self._policy.of(key)[0]
        if at_ms > now_ms - self._policy.window_ms and fits and window.add(at_ms, 1):
            self._rates.move_to_end(key)

    def expire(self, now_ms: int) -> None:
        """Forget campaigns that have nothing left in their window."""
        while self._rates:
            key, (window, burst) = next(iter(self._rates.items()))
            window.expire(now_ms)
            burst.expire(now_ms)
            if window.total or burst.total:
                return
            del self._rates[key]

    def _of(self, key: str) -> tuple[Sliding, Sliding]:
        rates = self._rates.get(key)
        if rates is None:
            rates = (Sliding(self._policy.window_ms), Sliding(BURST_WINDOW_MS))
            self._rates[key] = rates
        elif rates[0].window_ms != self._policy.window_ms:
            rates = self._rates[key] = (rates[0].over(self._policy.window_ms), rates[1])
        return rates
