"""The deployment that takes events and answers questions over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import ray
import structlog
from ray import serve
from ray.serve.handle import DeploymentHandle

from ray_tracking import failpoints, garbage, logs
from ray_tracking.actors.attach import Attachment
from ray_tracking.actors.autoscaling import recorded
from ray_tracking.actors.calls import CallServer
from ray_tracking.actors.clients import BroadcasterClient, ShardClients
from ray_tracking.actors.supervisor import Runtime
from ray_tracking.clock import node_clock
from ray_tracking.errors import SettingsError
from ray_tracking.http.app import App
from ray_tracking.http.gatherer import Gatherer
from ray_tracking.http.inside import Inside
from ray_tracking.http.lag import LoopLag
from ray_tracking.http.listener import Listener, listener_options
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.metrics import exposition
from ray_tracking.http.ports import Ports
from ray_tracking.http.report import Reporter
from ray_tracking.http.shared import Shared
from ray_tracking.http.spooler import Spooler
from ray_tracking.jobs.submit import ReplayJobs
from ray_tracking.pipeline import enrich
from ray_tracking.pipeline.gather import GatherPolicy
from ray_tracking.pipeline.health import overall_health, readiness
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Router
from ray_tracking.pipeline.scaling import ReplicaLoad
from ray_tracking.pipeline.stats import processing_stats
from ray_tracking.settings import Settings
from ray_tracking.settings.changes import changed
from ray_tracking.sources.rules import load_rules
from ray_tracking.sources.tokens import TokenKeys
from ray_tracking.stores.geo import GeoTable
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.spans import Spans
from ray_tracking.stores.spool import Spool

log = structlog.get_logger("ray_tracking.ingress")

#: Long enough for a call to be worth its cost, short enough for nobody to notice.
_LINGER_S = 0.010
_REPORT_EVERY_S = 1.0
#: How old a snapshot may be before the supervisor is asked for one.
_SNAPSHOT_FOR_S = 2.0
_ASK_AGAIN_S = 0.1
_ANSWER_WITHIN_S = 5.0


class IngressReplica:
    """Takes events and answers questions over HTTP."""

    def __init__(self, settings: Settings, supervisor: DeploymentHandle, generation: str) -> None:
        self._generation = generation
        self._settings = settings.with_environment()
        self._supervisor = supervisor
        self._snapshot = Shared(self._ask_supervisor, _SNAPSHOT_FOR_S)
        self._listener: Listener | None = None
        self._name = uuid4().hex[:12]
        self._lag = LoopLag()
        #: When Serve last asked, and what had been done by then: requests, events.
        self._recorded = (time.monotonic(), 0, 0)
        #: What was changed of the settings, as the supervisor last said.
        self._changes: Mapping[str, Any] = {}
        failpoints.arm(self._settings.failpoints_dir)
        logs.configure(self._settings.log_level, f"ingress-{self._name}")

    async def __serve_build_asgi_app__(self) -> App:
        """Called once, on the replica, when it starts."""
        settings = self._settings
        runtime = await self._runtime()
        self._clock = node_clock(settings.data_dir)
        self._shards = ShardClients(runtime.shard_names)
        self._broadcaster = BroadcasterClient(runtime.broadcaster_name)
        self._hub = Hub(self._broadcaster.poll, self._broadcaster.watch, self._clock)
        await self._hub.start()
        self._queries = await Queries.open(runtime.database_url, settings.database_schema)
        self._gatherer = Gatherer(
            self._shards.submit,
            runtime.shard_of,
            GatherPolicy(
                max_buffered_events=settings.max_buffer_size,
                linger_s=_linger_s(settings),
            ),
        )
        enrich.load_rules()
        self._spooler = await self._open_spool(runtime)
        self._ports = Ports(
            settings=settings,
            gatherer=self._gatherer,
            router=Router(settings.partitions, runtime.secret),
            tokens=TokenKeys(runtime.encryption_keys),
            queries=self._queries,
            geo=GeoTable(settings.geo_database),
            health=self._health,
            ready=self._ready,
            metrics=self._metrics,
            hub=self._hub,
            affinity=Affinity(runtime.secret),
            stats=self._stats,
            config=self._config,
            rules=load_rules(settings.validation_rules),
            spooler=self._spooler,
            jobs=ReplayJobs(serve.get_replica_context().app_name, settings.database_schema),
            clock=self._clock,
            spans=Spans.to(settings.otlp_endpoint, f"ingress-{self._name}"),
        )
        self._app = App(self._ports)
        self._reporter = Reporter(self._name, self._app, self._ports)
        self._calls = CallServer([Inside(self._app).request])
        self._endpoint = await self._calls.start(ray.util.get_node_ip_address())
        self._broadcaster_name = runtime.broadcaster_name
        self._reporting = asyncio.create_task(self._report_loop())
        self._hearing = asyncio.create_task(self._ports.erased.run())
        self._measuring = asyncio.create_task(self._lag.run())
        if settings.listener == "replica":
            self._listener = Listener(
                self._app,
                settings.host,
                settings.port,
                self._app.hot,
                goodbye=self._hub.say_goodbye,
                affinity=self._ports.affinity,
                **listener_options(self._ports),
            )
            await self._listener.start()
        garbage.settle()
        return self._app

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What Serve's autoscaling policy goes by, since it last asked."""
        if not hasattr(self, "_ports"):
            return recorded(ReplicaLoad())  # it has not begun
        traffic = self._ports.traffic
        answered = self._listener.requests if self._listener is not None else traffic.requests
        at_s, requests, events = self._recorded
        now_s = time.monotonic()
        self._recorded = (now_s, answered, traffic.events)
        over_s = max(0.1, now_s - at_s)
        return recorded(
            ReplicaLoad(
                requests_per_s=(answered - requests) / over_s,
                events_per_s=(traffic.events - events) / over_s,
                sockets=self._hub.connections,
                loop_lag_ms=self._lag.ms,
                backlog=self._gatherer.room.events / self._settings.max_buffer_size,
            )
        )

    async def attach(self) -> Attachment:
        """How a process on this Ray reaches this replica, and hears of what happens."""
        settings = self._ports.settings
        # With an id, and without one.
        known_for_ms = min(
            settings.effective_idempotency_window_ms, settings.deduplication_window_ms
        )
        return Attachment(self._endpoint, self._broadcaster_name, known_for_ms)

    async def check_health(self) -> None:
        """The loop turns, and that is all: a part that is away must not end this one."""

    async def __del__(self) -> None:
        if not hasattr(self, "_app"):
            return  # it has never begun
        if self._listener is not None:
            await self._listener.stop()
        await self._app.tracking.drain()
        await self._gatherer.drain()
        await self._calls.close()
        self._reporting.cancel()
        self._hearing.cancel()
        self._measuring.cancel()
        if self._spooler is not None:
            await self._spooler.close()
        await self._shards.close()
        await self._hub.stop()
        await self._broadcaster.close()
        await self._queries.close()
        if self._ports.spans is not None:
            await self._ports.spans.close()

    async def _runtime(self) -> Runtime:
        """What the supervisor of our generation says; the one before may still be there."""
        while True:
            runtime: Runtime | None = await self._supervisor.runtime.remote(self._generation)
            if runtime is not None:
                return runtime
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _open_spool(self, runtime: Runtime) -> Spooler | None:
        settings = self._settings
        if not settings.spool:
            return None
        directory = settings.data_dir / "spool"
        spooler = Spooler(
            directory,
            await Spool.create(directory, max_bytes=settings.spool_max_bytes),
            EventLog(runtime.redis_url, settings.redis_prefix),
            self._shards.drain_spool,
            runtime.shard_of,
            Room(settings.max_buffer_size),
            self._clock,
        )
        await spooler.start()
        return spooler

    async def _report_loop(self) -> None:
        """Tell the supervisor how this replica is, and hear how the whole is."""
        while True:
            try:
                async with asyncio.timeout(_REPORT_EVERY_S):
                    report = self._reporter.report()
                    answer = await self._supervisor.exchange.remote(report)
                self._ports.mode, snapshot, values = answer
                self._snapshot.put(snapshot)
                self._go_by(values)
            except Exception as error:
                # It is beside the path: while it is away, everything else goes on.
                log.debug("supervisor not reached", reason=repr(error))
            await asyncio.sleep(_REPORT_EVERY_S)

    def _go_by(self, values: Mapping[str, Any]) -> None:
        """Have the settings changed so."""
        if values == self._changes:
            return
        self._changes = values
        try:
            settings = changed(self._settings, values)
        except SettingsError as error:  # this node's own environment does not fit
            log.error("settings not changed", reason=str(error))
            return
        self._ports.settings = settings
        self._gatherer.linger_for(_linger_s(settings))
        logs.configure(settings.log_level)

    async def _ready(self) -> str | None:
        reason = readiness(await self._shards.statuses(timeout_s=1.0))
        if reason and self._spooler is not None and self._spooler.trouble is None:
            return None  # not into the log, but events are taken
        return reason

    async def _ask_supervisor(self) -> dict[str, Any] | None:
        """What the supervisor says; None if it does not answer."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                snapshot: dict[str, Any] = await self._supervisor.health.remote()
                return snapshot
        except Exception:
            # Whatever keeps the supervisor from answering is what there is to report.
            return None

    async def _health(self) -> dict[str, Any]:
        snapshot = await self._snapshot.get()
        if snapshot is None:
            return overall_health(None, now_s=time.time())
        health: dict[str, Any] = snapshot["health"]
        return health

    async def _metrics(self) -> bytes | None:
        snapshot = await self._snapshot.get()
        return exposition(snapshot) if snapshot is not None else None

    async def _config(self) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                config: dict[str, Any] = await self._supervisor.config.remote()
                return config
        except Exception as error:
            log.debug("supervisor not reached", reason=repr(error))
            return None

    async def _stats(self) -> dict[str, Any] | None:
        snapshot = await self._snapshot.get()
        return processing_stats(snapshot) if snapshot is not None else None


def _linger_s(settings: Settings) -> float:
    return min(_LINGER_S, settings.buffer_flush_interval_ms / 1000)
