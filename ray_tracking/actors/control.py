"""Follows the rules in force, in the process of a part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ray_tracking import logs
from ray_tracking.errors import LogUnavailable
from ray_tracking.pipeline.control import Control
from ray_tracking.stores.control import ControlStore
from ray_tracking.stores.log import EventLog
from ray_tracking.tasks import wanted

_EVERY_S = 0.5

log = structlog.get_logger("ray_tracking.control")


class ControlWatch:
    """
    Args:
        name: Of the part.
        event_log: Beside which the rules stand.
        apply: Takes the rules over. They may be the same as before.
    """

    def __init__(self, name: str, event_log: EventLog, apply: Callable[[Control], None]) -> None:
        self._name = name
        self._store = ControlStore(event_log)
        self._apply = apply

    @property
    def version(self) -> str:
        """Names the rules that this part goes by; empty while they are those it was made with."""
        return self._store.version.decode()

    async def look(self) -> None:
        """
        Take over what is in force now. Before a part does anything by it.

        Raises:
            LogUnavailable: If the log does not answer.
        """
        control = await self._store.read()
        if control is not None:
            logs.configure(control.log_level)
            self._apply(control)
            log.info("rules taken over", part=self._name, version=self.version)

    async def run(self) -> None:
        """Go on looking, for as long as the part lives."""
        while wanted():
            await asyncio.sleep(_EVERY_S)
            try:
                await self.look()
            except LogUnavailable:
                continue  # what was in force stays in force
            except Exception:
                log.exception("rules not taken over", part=self._name)
