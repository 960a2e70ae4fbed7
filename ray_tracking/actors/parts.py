"""
The actors of the system as the supervisor sees them: how each is named, made, asked,
replaced and ended.

A name says whose data, which settings and which code, so an actor of another generation
is never mistaken for one of this, also where Ray has kept it running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import ray
import structlog
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_tracking import __version__, failpoints, garbage, logs
from ray_tracking.actors.broadcaster import Broadcaster, BroadcasterConfig
from ray_tracking.actors.calls import CallServer, Endpoint
from ray_tracking.actors.clients import NAMESPACE, actor_names
from ray_tracking.actors.pump import WriterConfig
from ray_tracking.actors.shard import Shard, ShardConfig
from ray_tracking.actors.writer import Writer
from ray_tracking.clock import Clock, node_clock, steady_clock
from ray_tracking.errors import LogUnavailable
from ray_tracking.memory import rss_bytes
from ray_tracking.pipeline.admit import AdmissionPolicy
from ray_tracking.pipeline.control import Control
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.modes import Mode
from ray_tracking.pipeline.rate import CampaignLimits, RatePolicy
from ray_tracking.pipeline.window import WindowPolicy
from ray_tracking.pipeline.write import FlushPolicy
from ray_tracking.settings import Settings

#: Of what the parts say to each other.
PROTOCOL = 1
_ANSWER_WITHIN_S = 2.0
#: As ``ray/serve/_private/constants.py`` names it, whose import would take a shard a second.
_SERVE_CONTROLLER = "SERVE_CONTROLLER_ACTOR", "serve"
#: Replaced after so many unanswered questions in a row.
_PATIENCE = 3

log = structlog.get_logger("ray_tracking.supervisor")

_Config = ShardConfig | WriterConfig | BroadcasterConfig
_Plain = Shard | Writer | Broadcaster


def end_process(reason: str) -> None:
    """How a fenced actor ends: at once, without a word to anybody else."""
    os._exit(1)


class _Works:
    """
    An actor that works when it is asked to, or when Ray has restarted it.

    It has what it is made of, and is not a kind of it: Ray wraps every method of an actor's
    class, those that nobody calls from outside too.
    """

    def __init__(self, part: _Plain, name: str) -> None:
        self._part = part
        self._name = name
        garbage.settle()
        self._first_start = asyncio.create_task(_try_to_start(part))

    def __repr__(self) -> str:
        """What Ray's dashboard calls it, and puts before what it says."""
        return self._name

    async def start(self) -> None:
        """Return when it works."""
        await self._part.start()

    async def status(self) -> dict[str, Any]:
        """Figures for health and stats."""
        return {**await self._part.status(), "rss_bytes": rss_bytes()}

    async def drain(self) -> None:
        """Return when nothing is left to do that was begun."""
        await self._part.drain()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._part.close()


class ShardActor(_Works):
    """A shard, and where it takes events."""

    def __init__(self, config: ShardConfig) -> None:
        _settle_in(config)
        shard = Shard(config, end_process, _clock(config))
        super().__init__(shard, config.name)
        # In the order of actors.clients.
        self._listening = _listen(CallServer([shard.submit, shard.drain_spool]), config)

    async def endpoint(self) -> Endpoint:
        """Where events are taken."""
        return await asyncio.shield(self._listening)


class WriterActor(_Works):
    """A writer."""

    def __init__(self, config: WriterConfig) -> None:
        _settle_in(config)
        self._writer = Writer(config, end_process, _clock(config))
        super().__init__(self._writer, config.name)

    async def tell(self, mode: Mode, level: Level) -> None:
        """The processing mode and the level of back-pressure in force."""
        await self._writer.set_pace(mode, level)


class BroadcasterActor(_Works):
    """The broadcaster, and where replicas ask it."""

    def __init__(self, config: BroadcasterConfig) -> None:
        _settle_in(config)
        self._broadcaster = Broadcaster(config, end_process, _clock(config))
        super().__init__(self._broadcaster, config.name)
        # In the order of actors.clients.
        told = self._broadcaster
        server = CallServer([told.poll, told.watch, told.hear])
        self._listening = _listen(server, config)

    async def endpoint(self) -> Endpoint:
        """Where it is asked."""
        return await asyncio.shield(self._listening)

    async def tell(self, batched: bool, messages: list[tuple[str, Any]]) -> None:
        """Whether the mode is ``BATCH``, and what subscribers of the system are to hear."""
        await self._broadcaster.set_batched(batched)
        for name, data in messages:
            await self._broadcaster.tell(name, data)


def _listen(server: CallServer, config: _Config) -> asyncio.Task[Endpoint]:
    file = config.clock_dir / "calls" / config.name if config.clock_dir else None
    return asyncio.create_task(server.start(ray.util.get_node_ip_address(), file))


def _settle_in(config: _Config) -> None:
    """What every process of ours does first."""
    failpoints.arm(config.failpoints_dir)
    logs.configure(config.log_level, config.name)


def _clock(config: _Config) -> Clock:
    return node_clock(config.clock_dir) if config.clock_dir else steady_clock()


async def _try_to_start(actor: _Plain) -> None:
    # One that is new waits: until the supervisor ends it, its predecessor works.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's answer uses what Ray has deprecated
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
    if not restarted:
        return
    with contextlib.suppress(LogUnavailable):  # whoever calls next tries again
        await actor.start()


class Part:
    """
    One actor.

    Args:
        instance: Whose data it works on.
        kind: The plain class that becomes the actor.
        config: What the actor is made with.
        placement: On which node, as Ray has it.
    """

    def __init__(
        self, instance: str, kind: type[Any], config: _Config, placement: Any = "SPREAD"
    ) -> None:
        generation = _digest(json.dumps([asdict(config), __version__, PROTOCOL], default=str))
        self.name = f"{instance}:{config.name}:v{PROTOCOL}-{generation}"
        #: What it last said of itself; None while it is silent.
        self.status: dict[str, Any] | None = None
        self._config = config
        self.config_name = config.name
        # Ray restarts it, but repeats no call: what writes is repeated by us, with ids.
        self._actor = ray.remote(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            enable_task_events=False,
            scheduling_strategy=placement,
        )(kind)
        self._handle: Any = None
        self._unanswered = 0

    @property
    def exists(self) -> bool:
        """Whether somebody has made it already."""
        return self.name in actor_names(self.name)

    @property
    def has_successor(self) -> bool:
        """Whether it is there with other settings or other code, as a redeployment leaves it."""
        return any(name != self.name for name in actor_names(self.name.rpartition(":")[0] + ":"))

    def create(self) -> None:
        """Make the actor, or find it where it is."""
        self._handle = self._actor.options(
            name=self.name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
        ).remote(self._config)

    async def made(self) -> None:
        """Return when its process is there."""
        with contextlib.suppress(RayError):  # whoever starts it hears of it
            await self._handle.status.remote()

    async def start(self) -> None:
        """Return when it works."""
        await self._handle.start.remote()

    async def look_after(self) -> None:
        """Ask it how it is; start it if it is new, replace it if it is wedged."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._handle.start.remote()
                self.status = await self._handle.status.remote()
            self._unanswered = 0
        except (RayActorError, RayTaskError, TimeoutError) as error:
            self.status = None
            self._unanswered += 1
            if isinstance(getattr(error, "cause", None), LogUnavailable):
                self._unanswered = 0  # alive, and waiting for the log as it should
            elif isinstance(error, ActorDiedError):
                if not self.has_successor:  # which is another supervisor's
                    self.create()
            elif self._unanswered >= _PATIENCE:
                log.error("replacing an actor that does not answer", actor=self.name)
                self._unanswered = 0
                ray.kill(self._handle, no_restart=False)

    async def tell(self, *arguments: Any) -> None:
        """Tell it something that matters only now; whether it hears is not known."""
        with contextlib.suppress(RayError, TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._handle.tell.remote(*arguments)

    async def ask(self, method: str, within_s: float) -> None:
        """Ask it to do something on its way to the end; what fails is only reported."""
        try:
            async with asyncio.timeout(within_s):
                await getattr(self._handle, method).remote()
        except (RayError, TimeoutError) as error:
            log.warning("not stopped cleanly", actor=self.name, step=method, reason=repr(error))

    def end(self) -> None:
        """End it for good."""
        _kill(self.name)


def instance_name(settings: Settings) -> str:
    """Names the data: two applications on one Ray never meet, nor do their actors."""
    where = settings.redis_connection_url or str(settings.data_dir)
    return f"tracking-{_digest(where + settings.redis_prefix)}"


def plan(
    settings: Settings, owned: dict[str, list[int]], database_url: str, redis_url: str
) -> tuple[list[Part], list[Part], Part]:
    """The shards, the writers and the broadcaster that the settings ask for."""
    common: dict[str, Any] = {
        "redis_url": redis_url,
        "redis_prefix": settings.redis_prefix,
        "database_url": database_url,
        "database_schema": settings.database_schema,
        "clock_dir": settings.data_dir,
        "failpoints_dir": settings.failpoints_dir,
        "log_level": settings.log_level,
    }
    instance = instance_name(settings)
    policy = admission_policy(settings)
    shards = [
        ShardConfig(
            name=name,
            policy=policy,
            max_buffered_events=settings.max_buffer_size,
            max_log_bytes=settings.max_backlog_bytes,
            **common,
        )
        for name in owned
    ]
    writers = [
        WriterConfig(
            name=f"writer-{index}",
            partitions=tuple(range(index, settings.partitions, settings.writers)),
            flush=flush_policy(settings),
            rate=policy.rate,
            otlp_endpoint=settings.otlp_endpoint,
            **common,
        )
        for index in range(settings.writers)
    ]
    broadcaster = BroadcasterConfig(name="broadcaster", partitions=settings.partitions, **common)
    where = _placement(settings)
    return (
        [Part(instance, ShardActor, config, where) for config in shards],
        [Part(instance, WriterActor, config, where) for config in writers],
        Part(instance, BroadcasterActor, broadcaster, where),
    )


def _placement(settings: Settings) -> Any:
    """
    Over the nodes, so that one that is lost takes few along; but beside servers of our own, whose
    sockets are on this node.
    """
    if settings.embedded_postgres or settings.embedded_valkey:
        node = ray.get_runtime_context().get_node_id()
        return NodeAffinitySchedulingStrategy(node, soft=True)
    return "SPREAD"


def count_nodes() -> int:
    """How many nodes the cluster has now."""
    return sum(bool(node["Alive"]) for node in ray.nodes())


def retire_others(instance: str, wanted: Iterable[Part]) -> None:
    """End actors of an earlier generation: their settings or their code are not ours."""
    names = {part.name for part in wanted}
    for name in actor_names(f"{instance}:"):
        if name not in names:
            log.info("retiring an actor of an earlier generation", actor=name)
            _kill(name)


def restart_controller() -> None:
    """
    Let Serve's controller begin anew, as it does after a crash; nothing that it runs stops.

    It times its looks at the replicas by the wall clock, so that after a step back it sees none
    that dies for as long as the step was (``_should_start_new_health_check`` in Ray's
    ``serve/_private/deployment_state.py``).
    """
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(*_SERVE_CONTROLLER), no_restart=False)


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


def control_of(settings: Settings, campaigns: Mapping[str, CampaignLimits]) -> Control:
    """What parts go by while they work: the settings, and the limits of single campaigns."""
    policy = admission_policy(settings)
    return Control(
        admission=replace(policy, rate=replace(policy.rate, campaigns=campaigns)),
        flush=flush_policy(settings),
        max_log_bytes=settings.max_backlog_bytes,
        log_level=settings.log_level,
    )


def flush_policy(settings: Settings) -> FlushPolicy:
    """When the writer flushes, from the settings."""
    return FlushPolicy(
        max_events=settings.max_batch_size,
        max_age_ms=settings.batch_processing_interval_ms,
        hybrid_age_ms=settings.buffer_flush_interval_ms,
        burst_delay_ms=settings.burst_delay_ms,
    )


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=5).hexdigest()


def _kill(name: str) -> None:
    try:
        ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
    except ValueError:
        return  # already gone
