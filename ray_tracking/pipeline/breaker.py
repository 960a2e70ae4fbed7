"""
A circuit breaker: may this server be called, or is it better left alone for a while?

    closed ──▶ open        too many of the last calls failed or were slow
    open ──▶ half_open     its time is over, and somebody asks
    half_open ──▶ open     a trial call failed; the next time is twice as long
    half_open ──▶ closed   enough trial calls succeeded; load comes back in a ramp

An outcome counts if its call began after the last opening. What was on its way before says
nothing about now: it changes no state, however late it comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

SLOTS_PER_WINDOW = 10

#: Who finds all trials taken asks again so soon: a trial rarely takes longer.
ASK_AGAIN_MS = 100.0


class BreakerState(StrEnum):
    """Closed as in electricity: calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open, for how long, and how to come back."""

    window_ms: int = 10_000
    #: With fewer calls than this in the window, as many failures in a row open it.
    min_calls: int = 10
    failure_rate: float = 0.5
    #: A call that took longer counts as one that failed.
    slow_call_ms: float = 2000.0
    first_open_ms: int = 500
    longest_open_ms: int = 15_000
    #: The time open is longer or shorter by up to this share, so that not all try at once.
    jitter: float = 0.2
    #: Trial calls at once.
    permits: int = 2
    #: A permit whose outcome never came is given back after this time.
    permit_timeout_ms: int = 10_000
    #: Trial calls that must succeed; one that fails opens it again.
    trials: int = 2
    #: How long it takes after closing until every call is let through.
    ramp_ms: int = 2000


@dataclass(slots=True)
class _Outcomes:
    """Those of the last ``window_ms``, in slots: ``[start, calls, failures]``, oldest first."""

    window_ms: int
    calls: int = 0
    failures: int = 0
    in_a_row: int = 0
    slots: deque[list[int]] = field(default_factory=deque)

    def add(self, at_ms: int, *, failed: bool) -> None:
        self.expire(at_ms)
        start = at_ms - at_ms % self._slot_ms
        if not self.slots or self.slots[-1][0] != start:
            self.slots.append([start, 0, 0])
        self.slots[-1][1] += 1
        self.slots[-1][2] += failed
        self.calls += 1
        self.failures += failed
        self.in_a_row = self.in_a_row + 1 if failed else 0

    def expire(self, now_ms: int) -> None:
        horizon = now_ms - self.window_ms - self._slot_ms
        while self.slots and self.slots[0][0] <= horizon:
            _, calls, failures = self.slots.popleft()
            self.calls -= calls
            self.failures -= failures

    @property
    def _slot_ms(self) -> int:
        return max(1, self.window_ms // SLOTS_PER_WINDOW)


class Breaker:
    """
    The breaker of one server, as one caller sees it.

    Everywhere, ``now_ms`` is Unix time by a clock that never goes back, and ``random`` is
    drawn anew for each call, from [0, 1).

    Args:
        policy: When to open, for how long, and how to come back.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self.state = BreakerState.CLOSED
        #: Since when it has not been closed; opening again does not move it.
        self.opened_at_ms: int | None = None
        self._outcomes = _Outcomes(policy.window_ms)
        self._closed_at_ms = -inf
        self._next_open_ms = policy.first_open_ms
        self._open_until_ms = 0.0
        #: Outcomes of calls that began before this are too late.
        self._valid_from_ms = -inf
        #: When each was taken. Opening again does not give back what is still on its way.
        self._permits: list[int] = []
        self._successes = 0

    @property
    def failures(self) -> int:
        """Failed and slow calls in the window, as of the last outcome."""
        return self._outcomes.failures

    def allow(self, now_ms: int, random: float) -> bool:
        """
        May this call be made? A yes is followed by the call and by :meth:`record`.

        In half-open, a yes takes a permit. While load comes back after closing, as many
        calls at once go through as there are permits, and of the others a growing share.
        """
        if self.state is BreakerState.OPEN:
            if now_ms < self._open_until_ms:
                return False
            self.state, self._successes = BreakerState.HALF_OPEN, 0
        share = self._share(now_ms)
        if share < 1 and self._has_permit(now_ms):
            self._permits.append(now_ms)
            return True
        return random < share

    def wait_ms(self, now_ms: int) -> float:
        """
        When to ask again, for callers that pause instead of refusing.

        Returns:
            0 when :meth:`allow` says yes now, whatever is drawn. Never 0 after a no.
        """
        if self.state is BreakerState.OPEN and now_ms < self._open_until_ms:
            return self._open_until_ms - now_ms
        certain = self._share(now_ms) == 1 or self._has_permit(now_ms)
        return 0.0 if certain else ASK_AGAIN_MS

    def record(
        self, ok: bool, *, took_ms: float, now_ms: int, random: float
    ) -> BreakerState | None:
        """
        Tell the outcome of a call that was allowed.

        Args:
            ok: Whether the server did its part. An error that the data caused is a
                success here: the server answered, and leaving it alone would not help.
            took_ms: Since the call was allowed. It says when the call began, too, and so
                which time it tells about.

        Returns:
            The new state if it changed.
        """
        began_ms = now_ms - took_ms
        self._give_back(began_ms)
        if self.state is BreakerState.OPEN or began_ms < self._valid_from_ms:
            return None
        failed = not ok or took_ms > self._policy.slow_call_ms
        self._outcomes.add(now_ms, failed=failed)
        if self.state is BreakerState.CLOSED:
            return self._open(now_ms, random) if failed and self._too_many() else None
        if failed:
            return self._open(now_ms, random)
        self._successes += 1
        return self._close(now_ms) if self._successes >= self._policy.trials else None

    def describe(self, now_ms: int) -> dict[str, str | int | None]:
        """What the stats show."""
        self._outcomes.expire(now_ms)
        return {
            "state": self.state.value,
            "failures": self.failures,
            "openedAt": self.opened_at_ms,
        }

    def _too_many(self) -> bool:
        outcomes, policy = self._outcomes, self._policy
        if outcomes.calls < policy.min_calls:
            # Not a rate yet. But someone who calls rarely, or whose calls all time out,
            # may never have more in a window.
            return outcomes.in_a_row >= policy.min_calls
        return outcomes.failures >= policy.failure_rate * outcomes.calls

    def _open(self, now_ms: int, random: float) -> BreakerState:
        policy = self._policy
        calm_ms = now_ms - self._closed_at_ms if self.state is BreakerState.CLOSED else 0
        if calm_ms >= policy.window_ms:
            self._next_open_ms = policy.first_open_ms
        span_ms = min(self._next_open_ms, policy.longest_open_ms)
        self._next_open_ms = 2 * span_ms
        open_ms = span_ms * (1 + policy.jitter * (2 * random - 1))
        self._open_until_ms = now_ms + open_ms
        # No call begins while it is open: the middle is right however a clock was rounded.
        self._valid_from_ms = now_ms + open_ms / 2
        if self.opened_at_ms is None:
            self.opened_at_ms = now_ms
        self.state = BreakerState.OPEN
        return self.state

    def _close(self, now_ms: int) -> BreakerState:
        self._outcomes = _Outcomes(self._policy.window_ms)
        self._closed_at_ms = now_ms
        self.opened_at_ms = None
        self.state = BreakerState.CLOSED
        return self.state

    def _share(self, now_ms: int) -> float:
        """Of the calls that have no permit, how many go through."""
        if self.state is not BreakerState.CLOSED:
            return 0.0
        since_ms = now_ms - self._closed_at_ms
        return since_ms / self._policy.ramp_ms if since_ms < self._policy.ramp_ms else 1.0

    def _has_permit(self, now_ms: int) -> bool:
        timeout_ms = self._policy.permit_timeout_ms
        self._permits = [at for at in self._permits if now_ms - at < timeout_ms]
        return len(self._permits) < self._policy.permits

    def _give_back(self, began_ms: float) -> None:
        # Its own is the last one taken before it began, give or take a rounded millisecond.
        # A call that had none, or whose permit timed out, finds none.
        taken = [at for at in self._permits if at <= began_ms + 1]
        if taken:
            self._permits.remove(max(taken))
