"""
Counts of others, kept when those begin anew or go.

A process counts since it began. What the whole cluster has counted must not go back because
one of its processes was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: One that has said nothing for so long does not come back with its old counts.
_KEPT_S = 600.0


class Growth:
    """
    Sums of counts, by what they grow.

    Args:
        names: What is counted.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.totals = dict.fromkeys(names, 0)
        #: ``[when, counts]`` of each process, as it last said.
        self._last: dict[str, tuple[float, Mapping[str, int]]] = {}

    def take(
        self, who: str, counts: Mapping[str, int], now_s: float, *, is_new: bool = True
    ) -> None:
        """
        Take in what a process says that it has counted since it began.

        Args:
            who: The process, or what takes its place when it begins anew.
            counts: By name; those that are missing are 0, and others are let be.
            now_s: By a clock that never goes back.
            is_new: Whether what it says first was counted in our time.
        """
        known = self._last.get(who)
        for name in self.totals:
            count = counts.get(name, 0)
            before = known[1].get(name, 0) if known else (0 if is_new else count)
            self.totals[name] += count - before if count >= before else count
        self._last[who] = now_s, counts

    def forget(self, now_s: float) -> None:
        """Let go of those that have said nothing for long; what they counted stays."""
        for who in [who for who, (at_s, _) in self._last.items() if now_s - at_s > _KEPT_S]:
            del self._last[who]
