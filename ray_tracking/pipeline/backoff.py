"""How long to wait before the next attempt: longer each time, and never in step with others."""

from __future__ import annotations

from dataclasses import dataclass

#: More doublings are no float: 2.0 ** 1024 overflows.
_MAX_DOUBLINGS = 1023


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Exponential backoff with full jitter.

    Full jitter draws from all of the interval, not from its end: the attempts of many
    who failed together are spread evenly, and each of them waits half as long on average.

    See "Exponential Backoff and Jitter" on the AWS Architecture Blog, 2015:
    ``sleep = random_between(0, min(cap, base * 2 ** attempt))``.
    """

    first_s: float = 0.1
    longest_s: float = 5.0

    def wait_s(self, attempt: int, random: float) -> float:
        """
        How long to wait after an attempt that failed; at times almost nothing.

        Args:
            attempt: Which one failed, counted from 0. Any number: the wait stops growing
                at ``longest_s``.
            random: Drawn anew for each attempt, from [0, 1).
        """
        return random * min(self.longest_s, self.first_s * 2.0 ** min(attempt, _MAX_DOUBLINGS))
