"""Does it move, and since when is it as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
    """Since when has something stood still that has work to do?"""

    def __init__(self) -> None:
        self._done = -1
        self._since_ms: int | None = None

    def stalled_ms(self, waiting: int, done: int, now_ms: int) -> int:
        """
        How long nothing was done although something waited.

        Args:
            waiting: What is to be done.
            done: A count that grows with what is done.
            now_ms: By a clock that never goes back.
        """
        if waiting <= 0 or done != self._done or self._since_ms is None:
            self._since_ms = now_ms
        self._done = done
        return now_ms - self._since_ms


class Since:
    """Since when each component has had the status that it has."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def note(self, components: Mapping[str, Mapping[str, Any]], timestamp: str) -> dict[str, Any]:
        """The components, each with ``since``: when it was first seen with its status."""
        for name, part in components.items():
            if name not in self._known or self._known[name][0] != part["status"]:
                self._known[name] = part["status"], timestamp
        return {
            name: {"status": part["status"], "since": self._known[name][1], **part}
            for name, part in components.items()
        }
