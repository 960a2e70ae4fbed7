"""
Changes while everything runs: of settings, and of the limits of single campaigns.

Settings change by Serve's ``user_config``, limits by the API, through Postgres. Both are put
beside the log, where shards, writers and the broadcaster find them; ingress replicas hear of
settings with the answer to their reports.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from ray_tracking import logs
from ray_tracking.actors.parts import control_of
from ray_tracking.errors import LogUnavailable, SettingsError
from ray_tracking.pipeline.control import version_of
from ray_tracking.pipeline.rate import CampaignLimits
from ray_tracking.pipeline.rows import iso_utc
from ray_tracking.settings import Settings
from ray_tracking.settings.changes import CHANGEABLE, changed, differences
from ray_tracking.stores.control import ControlStore
from ray_tracking.stores.failures import StoreUnavailable
from ray_tracking.stores.limits import LimitStore
from ray_tracking.stores.log import EventLog
from ray_tracking.tasks import wanted

_EVERY_S = 0.5
#: How many changes are shown.
_KEPT = 100

log = structlog.get_logger("ray_tracking.supervisor")


class Tuning:
    """
    Args:
        settings: As the service was started.
    """

    def __init__(self, settings: Settings) -> None:
        self._base = settings
        self._base_version = version_of(control_of(settings, {}).encode())
        #: As they are now.
        self.settings = settings
        #: What was changed of them, by name.
        self.values: Mapping[str, Any] = {}
        self._changes: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._rejected: dict[str, Any] | None = None
        self._limits: Mapping[str, CampaignLimits] = {}
        self._limits_version: int | None = None
        self._control: ControlStore | None = None
        self._store: LimitStore | None = None
        self._due = asyncio.Event()

    async def begin(self, event_log: EventLog, database_url: str) -> None:
        """
        Say what is in force, before any part is made.

        Where a supervisor of the same settings was before us, what it said stays in force until
        Serve has told us what was changed.

        Raises:
            LogUnavailable: If the log does not answer.
        """
        self._control = ControlStore(event_log)
        self._store = await LimitStore.open(database_url, self._base.database_schema)
        if (before := await self._control.read()) is not None:
            # Until Postgres answers, which may take a while.
            self._limits = before.admission.rate.campaigns
        same = await self._control.begin(self._base_version)
        if not (same and before):
            await self._turn()

    async def run(self) -> None:
        """Keep what is in force true, for as long as the supervisor lives."""
        while wanted():
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self._turn()
            except LogUnavailable as error:
                log.debug("rules not written", reason=str(error))
            except Exception:
                log.exception("rules not written")

    async def close(self) -> None:
        """Let go of every connection."""
        if self._store is not None:
            await self._store.close()

    def change(self, values: Any) -> bool:
        """
        Change settings: all that is asked for, or, where anything of it is wrong, nothing.

        Args:
            values: All that is to be otherwise than at the start, by name.

        Returns:
            Whether it was possible.
        """
        try:
            new = changed(self._base, values)
        except SettingsError as error:
            self._rejected = {"at": iso_utc(datetime.now(UTC)), "error": str(error)}
            log.error("settings not changed", reason=str(error))
            return False
        self._rejected = None
        for name, before, after in differences(self.settings, new):
            log.warning("setting changed", name=name, old=before, new=after)
            at = iso_utc(datetime.now(UTC))
            self._changes.append({"at": at, "name": name, "old": before, "new": after})
        self.settings, self.values = new, dict(values or {})
        logs.configure(new.log_level)
        self._due.set()
        return True

    def describe(self, parts: Mapping[str, str | None]) -> dict[str, Any]:
        """
        The settings in force, for whoever may see them.

        Args:
            parts: Which rules each part goes by; None while it is silent.
        """
        shown = self.settings.public_dict()
        wanted_version = self._control.version.decode() if self._control else ""
        return {
            "settings": {
                name: {
                    "value": value,
                    "source": self.settings.source_of(name),
                    "changeable": name in CHANGEABLE,
                }
                for name, value in shown.items()
            },
            "changes": list(self._changes),
            "rejected": self._rejected,
            "pending": [name for name, version in parts.items() if version != wanted_version],
        }

    async def _turn(self) -> None:
        assert self._control is not None
        await self._read_limits()
        await self._control.write(control_of(self.settings, self._limits), self._base_version)

    async def _read_limits(self) -> None:
        assert self._store is not None
        try:
            version = await self._store.version()
            if version != self._limits_version:
                self._limits = await self._store.all()
                self._limits_version = version
        except StoreUnavailable as error:
            log.debug("limits not read", reason=str(error))  # they stay as they were
