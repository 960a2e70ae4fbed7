"""
The supervisor: starts the parts in order, watches them, replaces the wedged, and stops
them in order.

Servers first, then the schema, then shards, writers and broadcaster; the other way round at
the end. It decides who owns which partitions, and nothing that an acknowledgement stands on: if
it dies, everything goes on, and its successor finds the parts where they are.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import structlog

from ray_tracking.actors.parts import (
    Part,
    count_nodes,
    instance_name,
    plan,
    restart_controller,
    retire_others,
)
from ray_tracking.actors.ray_gauges import RayGauges
from ray_tracking.actors.tuning import Tuning
from ray_tracking.clock import ClockSteps
from ray_tracking.errors import LogUnavailable, StartError
from ray_tracking.memory import rss_bytes, total_bytes
from ray_tracking.pipeline.level import LevelGauge, LevelPolicy
from ray_tracking.pipeline.modes import Mode, ModeGauge, Throughput, pinned_mode
from ray_tracking.pipeline.overview import Circuits, Overview, ReplicaReport, Status
from ray_tracking.pipeline.picture import Picture
from ray_tracking.pipeline.route import SECRET_BYTES
from ray_tracking.pipeline.stats import processing_stats
from ray_tracking.settings import Settings
from ray_tracking.sources.keys import read_keys
from ray_tracking.stores import database, log_setup
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_setup import LogIdentity
from ray_tracking.stores.pulse import Pulse, PulseReader
from ray_tracking.tasks import wanted

_WATCH_EVERY_S = 0.5
_LOOK_EVERY_S = 1.0
_GAUGES_EVERY_S = 5.0
_ANSWER_WITHIN_S = 2.0
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
    broadcaster_name: str


class Supervisor:
    """
    A plain class; :mod:`ray_tracking.app` makes it a Serve deployment of one replica.

    Args:
        settings: With the environment merged in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tuning = Tuning(settings)
        self._servers: EmbeddedServers | None = None
        self._log: EventLog | None = None
        self._shards: list[Part] = []
        self._writers: list[Part] = []
        self._broadcaster: Part | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runtime: Runtime | None = None
        self._warnings: list[str] = []
        self._gauge = LevelGauge(_level_policy(settings))
        #: Sets off anew whoever waits for an interval.
        self._changed = asyncio.Event()
        self._modes = ModeGauge(settings.realtime_threshold, pinned_mode(settings.processing_mode))
        self._throughput = Throughput()
        self._circuits = Circuits()
        self._picture = Picture(time.monotonic())
        self._pulse = Pulse(True)
        self._log_up = True
        self._stopping = False

    # -- start -----------------------------------------------------------------

    async def start(self) -> None:
        """
        Bring everything up; return when events can be taken.

        Raises:
            StartError: One line that says what is not as it must be.
        """
        settings = self._settings
        if wrong := single_node_only(settings, await asyncio.to_thread(count_nodes)):
            raise StartError(wrong)
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
        await self._tuning.begin(self._log, database_url)
        self._tasks.append(asyncio.create_task(self._tuning.run()))
        self._shards, self._writers, self._broadcaster = plan(
            settings, owned, database_url, redis_url
        )
        await self._start_parts()
        self._runtime = Runtime(
            database_url,
            [shard.name for shard in self._shards],
            [partition % settings.shard_count for partition in range(settings.partitions)],
            identity.secret,
            read_keys(settings.encryption_keys, settings.data_dir, make=True),
            redis_url,
            self._broadcaster.name,
        )
        # Before any replica begins: what it acknowledges is compared with what is in the books.
        await asyncio.gather(*[part.look_after() for part in self._parts])
        self._snapshot()
        await self._look(pulse := PulseReader(database_url, settings.database_schema, "health"))
        self._tasks.append(asyncio.create_task(self._look_loop(pulse)))
        self._tasks.append(asyncio.create_task(self._watch_loop()))
        for name, interval, make in (
            ("health_check", "health_check_interval_s", itemgetter("health")),
            ("metrics_collected", "metrics_interval_s", processing_stats),
        ):
            self._tasks.append(asyncio.create_task(self._tell_loop(name, interval, make)))
        self._tasks.append(asyncio.create_task(self._gauge_loop()))
        self._tasks.append(asyncio.create_task(self._clock_loop()))
        await self.tell("initialized", None)
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
            self._shards, self._writers, self._broadcaster = [], [], None
            raise

    @property
    def settings(self) -> Settings:
        """With the environment merged in, as they are now."""
        return self._tuning.settings

    @property
    def changes(self) -> Mapping[str, Any]:
        """What was changed of the settings since the start, by name."""
        return self._tuning.values

    def reconfigure(self, values: Any) -> None:
        """Change settings: all that is asked for, or nothing where anything of it is wrong."""
        if not self._tuning.change(values):
            return
        settings = self._tuning.settings
        self._gauge.policy = _level_policy(settings)
        self._modes.change(settings.realtime_threshold, pinned_mode(settings.processing_mode))
        self._changed.set()
        self._changed = asyncio.Event()

    def config(self) -> dict[str, Any]:
        """The settings in force, where each comes from, and who does not go by them yet."""
        return self._tuning.describe(
            {part.config_name: (part.status or {}).get("control") for part in self._parts}
        )

    @property
    def _parts(self) -> list[Part]:
        live = [self._broadcaster] if self._broadcaster else []
        return [*self._shards, *self._writers, *live]

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
            buffers_mib=settings.postgres_buffers_mib,
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
            breakers = {
                "redis": [shard.status for shard in self._shards],
                "database": [writer.status for writer in self._writers],
            }
            for name, data in self._circuits.update(breakers):
                log.warning(name, server=data["name"])
                await self.tell(name, data)
            whole = self.overview()
            self._throughput.update(whole.accepted, time.monotonic_ns() // 1_000_000)
            if level := self._gauge.update(whole.backlog):
                old, new = level
                log.warning(
                    "backpressure_changed", old_level=old.value, new_level=new.value,
                    backlog=whole.backlog,
                )  # fmt: skip
                await self.tell("backpressure_changed", {"oldLevel": old, "newLevel": new})
            if mode := self._modes.update(self._gauge.level, self._throughput.per_s, whole.backlog):
                log.info(
                    "processing_mode_changed", old_mode=mode[0].value, new_mode=mode[1].value,
                    level=self._gauge.level.value, per_s=round(self._throughput.per_s, 1),
                    backlog=whole.backlog,
                )  # fmt: skip
                await self.tell("processing_mode_changed", {"oldMode": mode[0], "newMode": mode[1]})
            await self._set_pace()
            self._snapshot()  # judged again, so that it is known since when it is so

    async def _set_pace(self) -> None:
        """Have those work in the mode in force that do not, as one does that began anew."""
        pace = self._modes.mode, self._gauge.level
        told = [
            writer.tell(*pace)
            for writer in self._writers
            if writer.status is not None and writer.status["pace"] != pace
        ]
        live = self._broadcaster
        batched = self._modes.mode is Mode.BATCH
        if live is not None and live.status is not None and live.status["batched"] != batched:
            told.append(live.tell(batched, []))
        await asyncio.gather(*told)

    async def tell(self, name: str, data: Any) -> None:
        """Have the broadcaster tell it to whoever wants to hear of the system."""
        if self._broadcaster is not None:
            await self._broadcaster.tell(self._modes.mode is Mode.BATCH, [(name, data)])

    async def _tell_loop(
        self, name: str, interval: str, make: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        while True:
            try:
                await self.tell(name, make(await self.health()))
            except Exception:
                log.exception("not told", what=name)
            await self._pause(interval)

    async def _pause(self, interval: str) -> None:
        """Wait for as long as a setting says, also where that changes meanwhile."""
        began_s = time.monotonic()
        while (left_s := began_s + getattr(self.settings, interval) - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _gauge_loop(self) -> None:
        gauges = RayGauges()
        while True:
            gauges.set(self._snapshot())
            await asyncio.sleep(_GAUGES_EVERY_S)

    async def _clock_loop(self) -> None:
        steps = ClockSteps()
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            if back_s := steps.back_s():
                log.warning("the wall clock was set back", seconds=round(back_s))
                restart_controller()

    def overview(self) -> Overview:
        """The whole in figures, as the parts last gave them."""
        return self._picture.overview(*self._statuses(), time.monotonic())

    async def exchange(self, report: ReplicaReport) -> tuple[Mode, dict[str, Any]]:
        """Take a replica's report; the answer is the mode, and what health is made of."""
        self._picture.report(report, time.monotonic())
        return self._modes.mode, self._snapshot()

    async def health(self) -> dict[str, Any]:
        """What health, stats and metrics are made of (pipeline.picture). Asks nobody."""
        return self._snapshot()

    def _statuses(self) -> tuple[list[Status], list[Status]]:
        return [part.status for part in self._shards], [part.status for part in self._writers]

    def _snapshot(self) -> dict[str, Any]:
        said = {
            "postgres_up": self._pulse.is_up,
            "postgres_trouble": self._pulse.trouble,
            "dead_letters": self._pulse.dead_letters,
            "redis_up": self._log_up,
            "warnings": self._warnings,
            "broadcaster": self._broadcaster.status if self._broadcaster else None,
            "level": self._gauge.level,
            "mode": self._modes.mode,
            "per_s": self._throughput.per_s,
            "peak_per_s": self._throughput.peak_per_s,
            "spool": self.settings.spool,
            "max_backlog_bytes": self.settings.max_backlog_bytes,
            "rss_bytes": rss_bytes(),
            "memory_total_bytes": total_bytes(),
        }
        return self._picture.snapshot(
            *self._statuses(), said, now_s=time.monotonic(), unix_s=time.time()
        )

    async def _look_loop(self, pulse: PulseReader) -> None:
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                await self._look(pulse)
        finally:
            await pulse.close()

    async def _look(self, pulse: PulseReader) -> None:
        """Whether the servers answer."""
        self._pulse, self._log_up = await asyncio.gather(
            pulse.look(_ANSWER_WITHIN_S), self._log_answers()
        )

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
        await self._tuning.close()
        await self.tell("shutdown", None)
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
        await self._tuning.close()
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


def single_node_only(settings: Settings, nodes: int) -> str | None:
    """Why a cluster of so many nodes cannot be served with these settings, if it cannot."""
    missing = [
        name
        for name, is_missing in (
            ("DATABASE_URL", settings.embedded_postgres),
            ("REDIS_URL", settings.embedded_valkey),
            ("EMAIL_ENCRYPTION_KEY", not settings.encryption_keys),
        )
        if is_missing
    ]
    if nodes < 2 or not missing:
        return None
    return f"{', '.join(missing)}: must be set on a cluster of several nodes; this one has {nodes}"


def _level_policy(settings: Settings) -> LevelPolicy:
    thresholds = settings.backpressure_thresholds
    return LevelPolicy(thresholds.warning, thresholds.critical, thresholds.emergency)
