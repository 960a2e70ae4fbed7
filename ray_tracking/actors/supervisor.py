"""
The supervisor: starts the parts in order, watches them, replaces the wedged, and stops
them in order.

Servers first, then the schema, then shards and writers; the other way round at the end.
It decides who owns which partitions, and nothing that an acknowledgement stands on: if
it dies, everything goes on, and its successor finds the parts where they are.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import ray
import structlog

from ray_tracking import __version__
from ray_tracking.actors.clients import NAMESPACE
from ray_tracking.actors.shard import Shard, ShardConfig
from ray_tracking.actors.writer import Writer, WriterConfig
from ray_tracking.errors import LogUnavailable, StartError
from ray_tracking.pipeline.admit import AdmissionPolicy
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import SECRET_BYTES
from ray_tracking.pipeline.window import WindowPolicy
from ray_tracking.pipeline.write import FlushPolicy
from ray_tracking.settings import Settings
from ray_tracking.sources.keys import read_keys
from ray_tracking.stores import database, log_setup
from ray_tracking.stores.embedded import EmbeddedServers
from ray_tracking.stores.log import EventLog

#: Part of every actor's name: actors with another protocol are never talked to.
PROTOCOL = 1
_WATCH_EVERY_S = 0.5
_ANSWER_WITHIN_S = 2.0
#: Replaced after so many unanswered questions in a row.
_PATIENCE = 3
_DRAIN_S = 5.0

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


@dataclass(slots=True)
class _Part:
    """An actor that is watched."""

    name: str
    create: Callable[[], Any]
    handle: Any = None
    unanswered: int = 0
    status: dict[str, Any] | None = None


def end_process(reason: str) -> None:
    """How a fenced actor ends: at once, without a word to anybody else."""
    os._exit(1)


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
        self._parts: list[_Part] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._runtime: Runtime | None = None
        self._warnings: list[str] = []
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
        shards = [f"shard-{index}" for index in range(settings.shards)]
        owned = {
            name: list(range(index, settings.partitions, settings.shards))
            for index, name in enumerate(shards)
        }
        await log_setup.assign(self._log.redis, settings.redis_prefix, owned)
        self._parts = self._plan(shards, database_url, redis_url)
        self._retire_others()
        for part in self._parts:
            part.handle = part.create()
        await asyncio.gather(*[part.handle.start.remote() for part in self._parts])
        self._runtime = Runtime(
            database_url,
            [part.name for part in self._parts[: len(shards)]],
            [partition % settings.shards for partition in range(settings.partitions)],
            identity.secret,
            read_keys(settings.encryption_keys, settings.data_dir, make=True),
        )
        self._tasks.append(asyncio.create_task(self._watch_loop()))
        log.info("started", data_dir=str(settings.data_dir), shards=len(shards))

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

    # -- the parts -------------------------------------------------------------

    def _plan(self, shards: list[str], database_url: str, redis_url: str) -> list[_Part]:
        settings = self._settings
        where = {
            "redis_url": redis_url,
            "redis_prefix": settings.redis_prefix,
            "database_url": database_url,
            "database_schema": settings.database_schema,
        }
        policy = admission_policy(settings)
        parts = [
            self._part(
                Shard,
                ShardConfig(
                    name=name,
                    policy=policy,
                    max_buffered_events=settings.max_buffer_size,
                    **where,
                ),
            )
            for name in shards
        ]
        for index in range(settings.writers):
            mine = tuple(range(index, settings.partitions, settings.writers))
            config = WriterConfig(
                name=f"writer-{index}", partitions=mine, flush=flush_policy(settings), **where
            )
            parts.append(self._part(Writer, config))
        return parts

    def _part(self, kind: type[Any], config: ShardConfig | WriterConfig) -> _Part:
        # The name says whose data, which code and which settings: an actor of another
        # generation is never mistaken for one of this.
        generation = _digest(json.dumps([asdict(config), __version__, PROTOCOL], default=str))
        name = f"{self._instance}:{config.name}:v{PROTOCOL}-{generation}"
        actor = ray.remote(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            enable_task_events=False,
        )(kind)

        def create() -> Any:
            return actor.options(
                name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
            ).remote(config, end_process)

        return _Part(name, create)

    @property
    def _instance(self) -> str:
        settings = self._settings
        where = settings.redis_connection_url or str(settings.data_dir)
        return f"tracking-{_digest(where + settings.redis_prefix)}"

    def _retire_others(self) -> None:
        """End actors of an earlier generation: their settings or their code are not ours."""
        wanted = {part.name for part in self._parts}
        for entry in ray.util.list_named_actors(all_namespaces=True):
            name = entry["name"]
            if (
                entry["namespace"] == NAMESPACE
                and name.startswith(f"{self._instance}:")
                and name not in wanted
            ):
                log.info("retiring an actor of an earlier generation", actor=name)
                _kill(name)

    # -- watching --------------------------------------------------------------

    async def _watch_loop(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            await asyncio.gather(*[self._look_after(part) for part in self._parts])

    async def _look_after(self, part: _Part) -> None:
        """Ask a part how it is; start it if it is new, replace it if it is wedged."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await part.handle.start.remote()
                part.status = await part.handle.status.remote()
            part.unanswered = 0
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError, TimeoutError) as error:
            part.unanswered += 1
            part.status = None
            if isinstance(getattr(error, "cause", None), LogUnavailable):
                part.unanswered = 0  # alive, and waiting for the log as it should
            elif isinstance(error, ray.exceptions.ActorDiedError):
                part.handle = part.create()
            elif part.unanswered >= _PATIENCE:
                log.error("replacing an actor that does not answer", actor=part.name)
                part.unanswered = 0
                ray.kill(part.handle, no_restart=False)

    async def health(self) -> dict[str, Any]:
        """What the health page is made of: each part's own status, None where it is silent."""
        settings = self._settings
        postgres_up, redis_up = await asyncio.gather(self._database_answers(), self._log_answers())
        return {
            "at_s": time.time(),
            "postgres_up": postgres_up,
            "redis_up": redis_up,
            "warnings": self._warnings,
            "shards": [part.status for part in self._parts[: settings.shards]],
            "writers": [part.status for part in self._parts[settings.shards :]],
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
        shards = self._parts[: self._settings.shards]
        await self._each(shards, "drain")
        await self._each(self._parts[self._settings.shards :], "drain")
        await self._each(self._parts, "close")
        for part in self._parts:
            _kill(part.name)
        if self._log is not None:
            await self._log.close()
        if self._servers is not None:
            await self._servers.stop()
        log.info("stopped")

    async def _ingress_closed(self) -> None:
        """Return when nobody listens on our port any more, or after a while."""
        deadline_s = time.monotonic() + _DRAIN_S
        while self._settings.listener == "replica" and time.monotonic() < deadline_s:
            with socket.socket(
                socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
            ) as probe:
                probe.setblocking(True)
                probe.settimeout(0.2)
                if probe.connect_ex((self._settings.host, self._settings.port)) != 0:
                    return
            await asyncio.sleep(0.05)

    async def _each(self, parts: list[_Part], method: str) -> None:
        async def ask(part: _Part) -> None:
            try:
                async with asyncio.timeout(_DRAIN_S):
                    await getattr(part.handle, method).remote()
            except (ray.exceptions.RayError, TimeoutError, AttributeError) as error:
                log.warning(
                    "could not stop cleanly", actor=part.name, step=method, reason=repr(error)
                )

        await asyncio.gather(*[ask(part) for part in parts])


def admission_policy(settings: Settings) -> AdmissionPolicy:
    """The rules of admission, from the settings."""
    return AdmissionPolicy(
        window=WindowPolicy(
            dedup_window_ms=settings.deduplication_window_ms,
            idempotency_window_ms=settings.effective_idempotency_window_ms,
            max_ids=settings.deduplication_cache_size,
        ),
        rate=RatePolicy(
            max_events=settings.max_events_per_window,
            window_ms=settings.rate_limit_window_ms,
            burst=settings.burst_capacity,
        ),
        compress=settings.buffer_compression_enabled,
    )


def flush_policy(settings: Settings) -> FlushPolicy:
    """When the writer flushes, from the settings."""
    realtime = settings.processing_mode == "realtime"
    return FlushPolicy(
        max_events=settings.max_batch_size,
        max_age_ms=0 if realtime else settings.batch_processing_interval_ms,
    )


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=5).hexdigest()


def _kill(name: str) -> None:
    try:
        ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
    except ValueError:
        return  # already gone
