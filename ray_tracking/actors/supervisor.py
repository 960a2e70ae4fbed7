"""
The supervisor: starts the parts in order, watches them, replaces the wedged, and stops
them in order.

Servers first, then the schema, then shards and writers; the other way round at the end.
It decides who owns which partitions, and nothing that an acknowledgement stands on: if
it dies, everything goes on, and its successor finds the parts where they are.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from dataclasses import dataclass
from typing import Any

import structlog

from ray_tracking.actors.parts import (
    Part,
    instance_name,
    keep_spare,
    plan,
    restart_controller,
    retire_others,
)
from ray_tracking.clock import ClockSteps
from ray_tracking.errors import LogUnavailable, StartError
from ray_tracking.pipeline.level import Level, LevelGauge, LevelPolicy
from ray_tracking.pipeline.overview import LastSaid, Overview, ReplicaReport, overview
from ray_tracking.pipeline.route import SECRET_BYTES
from ray_tracking.settings import Settings
from ray_tracking.sources.keys import read_keys
from ray_tracking.stores import database, log_setup
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_setup import LogIdentity
from ray_tracking.tasks import wanted

_WATCH_EVERY_S = 0.5
_SPARE_EVERY_S = 5.0
_ANSWER_WITHIN_S = 2.0
#: A replica that has said nothing for so long is gone.
_REPORT_FOR_S = 5.0
#: How long one step of the end may take.
_STEP_S = 3.0

log = structlog.get_logger("ray_tracking.supervisor")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an ingress replica must know beyond the settings."""

    database_url: str
    shard_names: list[str]
    #: The index of the shard that owns each partition.
    shard_of: list[int]
    secret: bytes
    encryption_keys: list[str]
    redis_url: str


class Supervisor:
    """
    A plain class; :mod:`ray_tracking.app` makes it a Serve deployment of one replica.

    Args:
        settings: With the environment merged in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._servers: EmbeddedServers | None = None
        self._log: EventLog | None = None
        self._shards: list[Part] = []
        self._writers: list[Part] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._runtime: Runtime | None = None
        self._warnings: list[str] = []
        self._replicas: dict[str, tuple[float, ReplicaReport]] = {}
        self._last_said = LastSaid(), LastSaid()
        thresholds = settings.backpressure_thresholds
        self._gauge = LevelGauge(
            LevelPolicy(thresholds.warning, thresholds.critical, thresholds.emergency)
        )
        self._stopping = False

    # -- start -----------------------------------------------------------------

    async def start(self) -> None:
        """
        Bring everything up; return when events can be taken.

        Raises:
            StartError: One line that says what is not as it must be.
        """
        settings = self._settings
        database_url, redis_url = await self._start_servers()
        self._log = EventLog(redis_url, settings.redis_prefix)
        refuse = settings.redis_safety == "refuse"
        self._warnings = await log_setup.check_server(self._log.redis, refuse=refuse)
        for warning in self._warnings:
            log.warning("redis", reason=warning)
        identity = await log_setup.identify(
            self._log.redis,
            settings.redis_prefix,
            partitions=settings.partitions,
            secret=secrets.token_bytes(SECRET_BYTES),
        )
        await self._prepare_database(database_url)
        owned = {
            f"shard-{index}": list(range(index, settings.partitions, settings.shard_count))
            for index in range(settings.shard_count)
        }
        await log_setup.assign(self._log.redis, settings.redis_prefix, owned)
        self._tasks.append(asyncio.create_task(self._keep_log(identity, owned)))
        self._shards, self._writers = plan(settings, owned, database_url, redis_url)
        await self._start_parts()
        self._runtime = Runtime(
            database_url,
            [shard.name for shard in self._shards],
            [partition % settings.shard_count for partition in range(settings.partitions)],
            identity.secret,
            read_keys(settings.encryption_keys, settings.data_dir, make=True),
            redis_url,
        )
        self._tasks.append(asyncio.create_task(self._watch_loop()))
        self._tasks.append(asyncio.create_task(self._spare_loop()))
        self._tasks.append(asyncio.create_task(self._clock_loop()))
        log.info("started", data_dir=str(settings.data_dir), shards=settings.shard_count)

    async def _start_parts(self) -> None:
        """Put them in the place of an earlier generation, or leave that as it is."""
        new = [part for part in self._parts if not part.exists]
        try:
            for part in self._parts:
                part.create()
            # An earlier generation works until the processes of this one are there, so the
            # time in which nobody does is short.
            await asyncio.gather(*[part.made() for part in self._parts])
            retire_others(instance_name(self._settings), self._parts)
            await asyncio.gather(*[part.start() for part in self._parts])
        except BaseException:
            # An earlier supervisor that is still there makes its own again.
            for part in new:
                part.end()
            self._shards, self._writers = [], []
            raise

    @property
    def settings(self) -> Settings:
        """With the environment merged in."""
        return self._settings

    @property
    def _parts(self) -> list[Part]:
        return [*self._shards, *self._writers]

    async def runtime(self) -> Runtime:
        """What an ingress replica needs to begin."""
        if self._runtime is None:
            raise StartError("the supervisor has not started")
        return self._runtime

    async def _start_servers(self) -> tuple[str, str]:
        settings = self._settings
        if settings.embedded_postgres or settings.embedded_valkey:
            await self._embed()
            self._tasks.append(asyncio.create_task(self._keep_servers()))
        urls = self._servers.urls if self._servers else None
        database_url = settings.database_connection_url or (urls and urls.database_url)
        redis_url = settings.redis_connection_url or (urls and urls.redis_url)
        if not database_url or not redis_url:
            raise StartError("the embedded servers did not say where they listen")
        return database_url, redis_url

    async def _embed(self) -> None:
        settings = self._settings
        self._servers = await EmbeddedServers.start(
            settings.data_dir,
            postgres=settings.embedded_postgres,
            valkey=settings.embedded_valkey,
        )

    async def _keep_servers(self) -> None:
        """Start the servers again when their guard has gone."""
        while self._servers is not None:
            await self._servers.closed()
            if self._stopping:
                return
            log.error("the embedded servers have gone; starting them again")
            try:
                await self._embed()
            except StartError as error:
                log.error("embedded servers", reason=str(error))
                await asyncio.sleep(_WATCH_EVERY_S)

    async def _keep_log(self, identity: LogIdentity, owned: dict[str, list[int]]) -> None:
        """Without what stands beside the log, no shard begins to work again."""
        assert self._log is not None
        while wanted():
            await asyncio.sleep(_WATCH_EVERY_S)
            try:
                if await self._log.put_back(identity, owned):
                    log.error("the event log was emptied, replaced, or set back")
            except (LogUnavailable, StartError) as error:
                log.debug("log not looked after", reason=str(error))

    async def _prepare_database(self, url: str) -> None:
        """The schema; a successor does not need Postgres to be there."""
        settings = self._settings
        assert self._log is not None
        began_before = await self._log.assignment() is not None
        try:
            await database.prepare(url, settings.database_schema, partitions=settings.partitions)
        except StartError as error:
            if not (began_before and "cannot be reached" in str(error)):
                raise
            log.warning("starting without Postgres", reason=str(error))

    # -- watching --------------------------------------------------------------

    async def _watch_loop(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            await asyncio.gather(*[part.look_after() for part in self._parts])
            if changed := self._gauge.update(self.overview().backlog):
                old, new = changed
                log.warning("backpressure_changed", old_level=old.value, new_level=new.value)

    async def _spare_loop(self) -> None:
        while True:
            await keep_spare()
            await asyncio.sleep(_SPARE_EVERY_S)

    async def _clock_loop(self) -> None:
        steps = ClockSteps()
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            if back_s := steps.back_s():
                log.warning("the wall clock was set back", seconds=round(back_s))
                restart_controller()

    def overview(self) -> Overview:
        """The whole in figures, as the parts last gave them."""
        shards, writers = self._last_said
        oldest_s = time.monotonic() - _REPORT_FOR_S
        self._replicas = {
            name: (at_s, report)
            for name, (at_s, report) in self._replicas.items()
            if at_s >= oldest_s
        }
        return overview(
            shards(shard.status for shard in self._shards),
            writers(writer.status for writer in self._writers),
            [report for _, report in self._replicas.values()],
        )

    async def exchange(self, report: ReplicaReport) -> Level:
        """Take a replica's report; the answer is the level of back-pressure."""
        self._replicas[report.replica] = (time.monotonic(), report)
        return self._gauge.level

    async def health(self) -> dict[str, Any]:
        """What the health page is made of: each part's own status, None where it is silent."""
        postgres_up, redis_up = await asyncio.gather(self._database_answers(), self._log_answers())
        return {
            "postgres_up": postgres_up,
            "redis_up": redis_up,
            "warnings": self._warnings,
            "shards": [shard.status for shard in self._shards],
            "writers": [writer.status for writer in self._writers],
            "replicas": [report for _, report in self._replicas.values()],
            "overview": self.overview(),
            "level": self._gauge.level,
            "spool": self._settings.spool,
        }

    async def _database_answers(self) -> bool:
        assert self._runtime is not None
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await database.answers(
                    self._runtime.database_url, self._settings.database_schema
                )
        except TimeoutError:
            return False

    async def _log_answers(self) -> bool:
        assert self._log is not None
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._log.assignment()
            return True
        except (LogUnavailable, TimeoutError):
            return False

    # -- stop ------------------------------------------------------------------

    async def stop(self) -> None:
        """
        Stop in order: ingress has closed, shards flush, writers drain, servers end.

        What a step cannot finish in its time stays in the log for the next start.
        """
        if self._stopping:
            return
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await self._ingress_closed()
        for parts, step in (
            (self._shards, "drain"),
            (self._writers, "drain"),
            (self._parts, "close"),
        ):
            await asyncio.gather(*[part.ask(step, _STEP_S) for part in parts])
        for part in self._parts:
            part.end()
        # A redeployment that failed may have left some.
        retire_others(instance_name(self._settings), self._parts)
        if self._log is not None:
            await self._log.close()
        if self._servers is not None:
            await self._servers.stop()
        log.info("stopped")

    async def release(self) -> None:
        """Let go of everything without ending it: another supervisor looks after it."""
        if self._stopping:
            return
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._log is not None:
            await self._log.close()
        if self._servers is not None:
            await self._servers.release()
        log.info("released")

    async def _ingress_closed(self) -> None:
        """Return when nobody listens on our port any more, or after a while."""
        deadline_s = time.monotonic() + _STEP_S
        while self._settings.listener == "replica" and time.monotonic() < deadline_s:
            with socket.socket(
                socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
            ) as probe:
                probe.setblocking(True)
                probe.settimeout(0.2)
                if probe.connect_ex((self._settings.host, self._settings.port)) != 0:
                    return
            await asyncio.sleep(0.05)
