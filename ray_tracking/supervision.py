"""The deployment that starts, watches and stops the parts of the system."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from ray import serve
from ray.serve.schema import ApplicationStatus

from ray_tracking import logs
from ray_tracking.actors.supervisor import Runtime, Supervisor
from ray_tracking.errors import Unavailable
from ray_tracking.jobs.submit import ReplayJobs
from ray_tracking.pipeline.letters import NewLetters, show
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.overview import ReplicaReport
from ray_tracking.settings import Settings
from ray_tracking.stores.failures import StoreRefused, StoreUnavailable
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.retention import NotCounted, Retention

log = structlog.get_logger("ray_tracking.supervisor")

_SERVE_ANSWERS_WITHIN_S = 5.0
_REPLAYS_EVERY_S = 2.0
_LETTERS_EVERY_S = 0.5
#: So many dead letters are told at once.
_LETTERS_AT_ONCE = 100
#: Often, because a row that comes for a day half dropped waits until it is dropped.
_RETENTION_EVERY_S = 60.0
#: A replay of which nobody has heard for so long has no process any more.
_REPLAY_SILENT_S = 20.0


class SupervisorReplica:
    """Starts, watches and stops the parts of the system."""

    # Serve awaits it: the replica counts as started only when everything is up.
    async def __init__(self, settings: Settings, generation: str) -> None:  # type: ignore[misc]
        self._generation = generation
        settings = settings.with_environment()
        logs.configure(settings.log_level, "supervisor")
        self._supervisor = Supervisor(settings)
        await self._supervisor.start()
        self._beside = [
            asyncio.create_task(self._keep_replays()),
            asyncio.create_task(self._tell_letters()),
            asyncio.create_task(self._drop_days()),
        ]

    async def _keep_replays(self) -> None:
        """Have replays go on whose process has died."""
        runtime = await self._supervisor.runtime()
        schema = self._supervisor.settings.database_schema
        jobs = ReplayJobs(serve.get_replica_context().app_name, schema)
        queries = await Queries.open(runtime.database_url, schema)
        while True:
            await asyncio.sleep(_REPLAYS_EVERY_S)
            try:
                for replay in await queries.replays.orphans(_REPLAY_SILENT_S):
                    log.warning("replay goes on", replay=replay["id"])
                    await jobs.submit(replay)
            except (StoreUnavailable, Unavailable) as error:
                log.debug("replays not looked after", reason=str(error))

    async def _tell_letters(self) -> None:
        """Tell of dead letters as they come. Postgres is asked only when there are more."""
        runtime = await self._supervisor.runtime()
        queries = await Queries.open(
            runtime.database_url, self._supervisor.settings.database_schema
        )
        new, told_of = NewLetters(datetime.now(UTC)), None
        while True:
            dead = self._supervisor.overview().dead
            try:
                if told_of is not None and dead != told_of:
                    rows = await queries.dead_letters.failed_since(
                        new.since, limit=_LETTERS_AT_ONCE
                    )
                    for letter in new.of(rows):
                        await self._supervisor.tell("dead_letter", show(letter))
                    if len(rows) == _LETTERS_AT_ONCE:
                        continue
                told_of = dead
            except StoreUnavailable as error:
                log.debug("dead letters not told", reason=str(error))
            await asyncio.sleep(_LETTERS_EVERY_S)

    async def _drop_days(self) -> None:
        """Drop raw events that are old enough."""
        runtime = await self._supervisor.runtime()
        retention = Retention(runtime.database_url, self._supervisor.settings.database_schema)
        while True:
            try:
                async for day in retention.run(self._supervisor.settings.raw_retention_days):
                    log.info("raw events dropped", day=str(day.day), rows=day.rows)
            except (StoreUnavailable, StoreRefused, NotCounted) as error:
                log.warning("raw events not dropped", reason=str(error))
            await asyncio.sleep(_RETENTION_EVERY_S)

    async def runtime(self, generation: str | None = None) -> Runtime | None:
        """None for an ingress of another generation: it has to wait for its own supervisor."""
        return await self._supervisor.runtime() if generation in (None, self._generation) else None

    async def health(self) -> dict[str, Any]:
        return await self._supervisor.health()

    async def exchange(
        self, report: ReplicaReport
    ) -> tuple[Mode, dict[str, Any], Mapping[str, Any]]:
        """Besides mode and snapshot, what was changed of the settings."""
        return *await self._supervisor.exchange(report), self._supervisor.changes

    async def reconfigure(self, values: Any) -> None:
        """Serve's ``user_config``. It never raises: Serve would replace what works well."""
        self._supervisor.reconfigure(values)

    async def config(self) -> dict[str, Any]:
        return self._supervisor.config()

    async def __del__(self) -> None:
        for task in getattr(self, "_beside", ()):
            task.cancel()
        if await _application_stays():
            await self._supervisor.release()
        else:
            await self._supervisor.stop()


async def _application_stays() -> bool:
    """
    Whether only this replica ends, because another is in its place or will be.

    Where Serve does not say so, everything ends: nothing is lost by that, and whoever comes
    next starts it again. Otherwise detached actors might stay behind for ever.
    """
    replica = serve.get_replica_context()
    try:
        async with asyncio.timeout(_SERVE_ANSWERS_WITHIN_S):
            status = await asyncio.to_thread(serve.status)
    except Exception as error:
        log.warning("Serve does not say why the supervisor ends", reason=repr(error))
        return False
    application = status.applications.get(replica.app_name)
    return (
        application is not None
        and application.status != ApplicationStatus.DELETING
        and replica.deployment in application.deployments
    )
