"""
The real parts in one process, on the real servers: shards, writers, the HTTP app.

Only Ray is absent: its call from ingress to shard is a plain ``await``, which can be
told to fail or to hang as the real one does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from redis.asyncio import Redis

from ray_tracking.actors.broadcaster import BroadcasterConfig
from ray_tracking.actors.pump import WriterConfig
from ray_tracking.actors.shard import ShardConfig
from ray_tracking.clock import Clock, steady_clock
from ray_tracking.errors import Unavailable
from ray_tracking.events import LANES
from ray_tracking.http.gatherer import Gatherer
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.metrics import exposition
from ray_tracking.http.ports import Ports
from ray_tracking.http.spooler import Spooler
from ray_tracking.memory import rss_bytes, total_bytes
from ray_tracking.pipeline.admit import AdmissionPolicy
from ray_tracking.pipeline.append import Entry, EntryId, Kind, decode_entry
from ray_tracking.pipeline.gather import (
    GatherPolicy,
)
from ray_tracking.pipeline.level import LevelGauge, LevelPolicy
from ray_tracking.pipeline.modes import ModeGauge, Throughput
from ray_tracking.pipeline.picture import Picture
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Router, Submission
from ray_tracking.pipeline.spooling import SpoolReport
from ray_tracking.pipeline.stats import processing_stats
from ray_tracking.pipeline.window import WindowPolicy
from ray_tracking.pipeline.write import FlushPolicy
from ray_tracking.settings import Settings
from ray_tracking.sources.tokens import TokenKeys
from ray_tracking.stores import database, log_setup
from ray_tracking.stores.geo import GeoTable
from ray_tracking.stores.log import EventLog, stream_key
from ray_tracking.stores.pulse import PulseReader
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.spans import Spans
from ray_tracking.stores.spool import Spool
from tests.support import events
from tests.support.jobs import Jobs
from tests.support.parts import Owner, Scribe, Voice
from tests.support.proxy import Proxy, before_postgres, before_valkey
from tests.support.service import Service, free_port

TOKEN_SECRET = "a secret for tests, of 32 characters or more"
HIGH, NORMAL, PARKED = range(len(LANES))

_LOG_ORDER = "log_partition, log_lane, log_epoch, log_seq, log_index"


class Stack:
    """
    One deployment with its own prefix in Valkey and its own schema in Postgres.

    Args:
        database_url: Of the Postgres that tests share.
        redis_url: Of the Valkey.
        partitions: How many the log has.
    """

    def __init__(self, database_url: str, redis_url: str, partitions: int = 4) -> None:
        name = uuid4().hex[:12]
        self.partitions = partitions
        self.database_url = database_url
        self.redis_url = redis_url
        self.schema = f"test_{name}"
        self.prefix = f"test-{name}:"
        self.redis = Redis.from_url(redis_url)
        self.owners: dict[str, Owner] = {}
        self.scribes: list[Scribe] = []
        #: The one that works, if there is one.
        self.voice: Voice | None = None
        self.services: list[Service] = []
        self.jobs: list[Jobs] = []
        self.proxies: list[Proxy] = []
        #: Shards that ingress cannot reach, by index.
        self.unreachable: set[int] = set()
        #: What a call from ingress to a shard raises that nobody expects.
        self.fails_with: Exception | None = None
        #: Cleared: calls from ingress to the shards do not come back.
        self.answering = asyncio.Event()
        self.answering.set()
        self._assigned: dict[str, list[int]] = {}
        #: Of the last shard.
        self.max_log_bytes = 2**32
        self._picture: Picture | None = None
        self._gauge = LevelGauge(LevelPolicy(5, 8, 95))
        self._modes = ModeGauge(100)
        self._throughput = Throughput()
        self._connection: asyncpg.Connection[Any] | None = None

    async def open(self) -> None:
        """Make the schema."""
        await database.prepare(self.database_url, self.schema, partitions=self.partitions)
        self._connection = await database.connect(self.database_url, self.schema, "tests")

    async def close(self) -> None:
        """End everything and leave nothing behind in the servers."""
        for proxy in self.proxies:
            proxy.release()
        self.answering.set()
        for service in self.services:
            await service.close()
        for jobs in self.jobs:
            await jobs.close()
        for owner in self.owners.values():
            await owner.kill()
        for scribe in self.scribes:
            await scribe.kill()
        if self.voice is not None:
            await self.voice.kill()
        for proxy in self.proxies:
            await proxy.close()
        if self._picture is not None:
            await self._pulse_reader.close()
        await self.sql(f'DROP SCHEMA "{self.schema}" CASCADE')
        assert self._connection is not None
        await self._connection.close()
        if keys := await self.redis.keys(f"{self.prefix}*"):
            await self.redis.delete(*keys)
        await self.redis.aclose()

    # -- networks that fail --------------------------------------------------------

    async def valkey_proxy(self) -> tuple[Proxy, str]:
        """A network to Valkey that fails on demand, and the URL through it."""
        proxy, url = await before_valkey(self.redis_url)
        self.proxies.append(proxy)
        return proxy, url

    async def postgres_proxy(self) -> tuple[Proxy, str]:
        """A network to Postgres that fails on demand, and the URL through it."""
        proxy, url = await before_postgres(self.database_url)
        self.proxies.append(proxy)
        return proxy, url

    # -- parts ---------------------------------------------------------------------

    async def shard(
        self,
        name: str = "shard-0",
        *,
        partitions: Iterable[int] | None = None,
        start: bool = True,
        redis_url: str | None = None,
        database_url: str | None = None,
        window: WindowPolicy | None = None,
        rate: RatePolicy | None = None,
        max_buffered_events: int = 10_000,
        max_log_bytes: int = 2**32,
        clock: Clock | None = None,
        assign: bool = True,
        **policy: Any,
    ) -> Owner:
        """
        A shard that owns some partitions, all of them if nothing else is said.

        One of a name that is there already is its successor; the old object stays as
        it is, to be killed or to go on as a zombie.
        """
        self.max_log_bytes = max_log_bytes
        self._assigned[name] = list(range(self.partitions) if partitions is None else partitions)
        if assign:
            await log_setup.assign(self.redis, self.prefix, self._assigned)
        owner = Owner(
            ShardConfig(
                name=name,
                redis_url=redis_url or self.redis_url,
                redis_prefix=self.prefix,
                database_url=database_url or self.database_url,
                database_schema=self.schema,
                policy=AdmissionPolicy(
                    window=window or WindowPolicy(), rate=rate or RatePolicy(), **policy
                ),
                max_buffered_events=max_buffered_events,
                max_log_bytes=max_log_bytes,
            ),
            clock,
        )
        if name in self.owners:
            self.owners[f"{name} before {uuid4().hex[:4]}"] = self.owners[name]
        self.owners[name] = owner
        if start:
            await owner.shard.start()
        return owner

    async def writer(
        self,
        name: str = "writer-0",
        *,
        partitions: Iterable[int] | None = None,
        redis_url: str | None = None,
        database_url: str | None = None,
        max_events: int = 1000,
        max_age_ms: int = 20,
        max_queue_bytes: int = 32 * 1024 * 1024,
        burst_delay_ms: int = 0,
        rate: RatePolicy | None = None,
        otlp_endpoint: str | None = None,
    ) -> Scribe:
        """A writer of some partitions, at work."""
        scribe = Scribe(
            WriterConfig(
                name=name,
                redis_url=redis_url or self.redis_url,
                redis_prefix=self.prefix,
                database_url=database_url or self.database_url,
                database_schema=self.schema,
                partitions=tuple(range(self.partitions) if partitions is None else partitions),
                flush=FlushPolicy(
                    max_events, max_age_ms, max_age_ms, burst_delay_ms, max_queue_bytes
                ),
                rate=rate or RatePolicy(),
                otlp_endpoint=otlp_endpoint,
            )
        )
        self.scribes.append(scribe)
        await scribe.writer.start()
        return scribe

    async def broadcast(
        self, *, redis_url: str | None = None, database_url: str | None = None
    ) -> Voice:
        """A broadcaster, in the place of the one before, which is killed."""
        if self.voice is not None:
            await self.voice.kill()
        self.voice = Voice(
            BroadcasterConfig(
                name="broadcaster",
                redis_url=redis_url or self.redis_url,
                redis_prefix=self.prefix,
                database_url=database_url or self.database_url,
                database_schema=self.schema,
                partitions=self.partitions,
            )
        )
        await self.voice.broadcaster.start()
        return self.voice

    async def silence(self) -> None:
        """Kill the broadcaster."""
        assert self.voice is not None
        await self.voice.kill()
        self.voice = None

    async def service(
        self,
        *,
        shard_of: Callable[[int], int] = lambda partition: 0,
        patience_s: float = 5.0,
        database_url: str | None = None,
        rules: Sequence[Any] = (),
        spool: Path | None = None,
        redis_url: str | None = None,
        port: int | None = None,
        **settings: Any,
    ) -> Service:
        """
        The HTTP app over the shards ``shard-0``, ``shard-1`` … of this stack, on a port.

        With a directory for its spool, if it is to have one.
        """
        # A hit has a second on a busy machine, unless the test is about how long it has.
        settings = {"partitions": self.partitions, "answer_timeout_ms": 1000} | settings
        chosen = Settings.load(settings, env={})
        owners = [shard_of(partition) for partition in range(self.partitions)]
        spooler = None
        if spool is not None:
            spooler = Spooler(
                spool,
                await Spool.create(spool, max_bytes=chosen.spool_max_bytes),
                EventLog(redis_url or self.redis_url, self.prefix),
                self._drain,
                owners,
                Room(chosen.max_buffer_size),
                steady_clock(),
            )
            await spooler.start()
        gatherer = Gatherer(
            self._call,
            owners,
            GatherPolicy(max_buffered_events=chosen.max_buffer_size),
            patience_s,
        )
        jobs = Jobs(database_url or self.database_url, self.schema)
        self.jobs.append(jobs)
        hub = Hub(self._poll, self._watch, steady_clock())
        await hub.start()
        ports = Ports(
            settings=chosen,
            gatherer=gatherer,
            router=Router(self.partitions, events.SECRET),
            tokens=TokenKeys([TOKEN_SECRET]),
            queries=await Queries.open(database_url or self.database_url, self.schema),
            geo=GeoTable(),
            health=self._health,
            ready=self._ready,
            metrics=self._metrics,
            hub=hub,
            affinity=Affinity(events.SECRET),
            stats=self._stats,
            rules=rules,
            spooler=spooler,
            jobs=jobs,
            spans=Spans.to(chosen.otlp_endpoint, "ingress"),
        )
        service = Service(ports, port or free_port())
        self.services.append(service)
        await service.listener.start()
        return service

    async def _call(self, index: int, blob: bytes) -> bytes:
        """What Ray does between ingress and shard."""
        if index in self.unreachable:
            raise Unavailable(f"shard {index} cannot be reached")
        if self.fails_with is not None:
            raise self.fails_with
        await self.answering.wait()
        return await self.owners[f"shard-{index}"].shard.submit(blob)

    async def _drain(self, index: int, blob: bytes) -> bytes:
        """The same for a chunk of a spool."""
        if index in self.unreachable:
            raise Unavailable(f"shard {index} cannot be reached")
        return await self.owners[f"shard-{index}"].shard.drain_spool(blob)

    async def _poll(self, blob: bytes) -> bytes:
        """What is between a replica and the broadcaster."""
        if self.voice is None:
            raise Unavailable("there is no broadcaster")
        return await self.voice.call(self.voice.broadcaster.poll, blob)

    async def _watch(self, blob: bytes) -> bytes:
        if self.voice is None:
            raise Unavailable("there is no broadcaster")
        return await self.voice.call(self.voice.broadcaster.watch, blob)

    async def look(self) -> dict[str, Any]:
        """What the supervisor would see now: real parts, asked as it asks them."""
        now_s = time.monotonic()
        if self._picture is None:
            self._picture = Picture(now_s)
            self._pulse_reader = PulseReader(self.database_url, self.schema, "health")
        pulse = await self._pulse_reader.look(2.0)
        for service in self.services:
            self._picture.report(service.reporter.report(), now_s)
        owners = [its for name, its in self.owners.items() if " before " not in name]
        shards = [None if its.gone else _sized(await its.status()) for its in owners]
        writers = [None if its.gone else _sized(await its.writer.status()) for its in self.scribes]
        whole = self._picture.overview(shards, writers, now_s)
        self._throughput.update(whole.accepted, round(1000 * now_s))
        self._gauge.update(whole.backlog)
        self._modes.update(self._gauge.level, self._throughput.per_s, whole.backlog)
        said = {
            "postgres_up": pulse.is_up,
            "postgres_trouble": pulse.trouble,
            "dead_letters": pulse.dead_letters,
            "redis_up": await self._log_answers(),
            "warnings": [],
            "broadcaster": _sized(await self.voice.broadcaster.status()) if self.voice else None,
            "level": self._gauge.level,
            "mode": self._modes.mode,
            "per_s": self._throughput.per_s,
            "peak_per_s": self._throughput.peak_per_s,
            "spool": any(service.ports.spooler for service in self.services),
            "max_backlog_bytes": self.max_log_bytes,
            "rss_bytes": rss_bytes(),
            "memory_total_bytes": total_bytes(),
        }
        return self._picture.snapshot(shards, writers, said, now_s=now_s, unix_s=time.time())

    async def _log_answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except ConnectionError:
            return False

    async def _health(self) -> dict[str, Any]:
        health: dict[str, Any] = (await self.look())["health"]
        return health

    async def _stats(self) -> dict[str, Any] | None:
        return processing_stats(await self.look())

    async def _ready(self) -> str | None:
        return None

    async def _metrics(self) -> bytes | None:
        return exposition(await self.look())

    # -- events --------------------------------------------------------------------

    def event(self, event_type: str = "EMAIL_OPEN", **more: Any) -> Submission:
        """One event ready for its shard; see :func:`tests.support.events.submission`."""
        return events.submission(event_type, partitions=self.partitions, **more)

    def campaign_in(self, partition: int, name: str = "campaign") -> str:
        """A campaign that belongs to a partition."""
        return events.campaign_in(partition, self.partitions, name)

    # -- looking from outside ------------------------------------------------------

    def stream(self, partition: int, lane: int = NORMAL) -> str:
        """The key of a stream."""
        return stream_key(self.prefix, partition, lane)

    async def entries(self, partition: int, lane: int = NORMAL) -> list[Entry]:
        """Everything that stands in a stream."""
        found = await self.redis.xrange(self.stream(partition, lane))
        return [decode_entry(*item) for item in found]

    async def batches(self, partition: int, lane: int = NORMAL) -> list[Entry]:
        """The entries of a stream that hold events."""
        entries = await self.entries(partition, lane)
        return [entry for entry in entries if entry.header.kind is Kind.BATCH]

    async def logged_ids(self) -> list[bytes]:
        """The id of every event in the log, in all streams."""
        ids: list[bytes] = []
        for partition in range(self.partitions):
            for lane in range(len(LANES)):
                for entry in await self.batches(partition, lane):
                    raw = entry.header.event_ids
                    ids += [raw[at : at + 16] for at in range(0, len(raw), 16)]
        return ids

    async def empty_log(self) -> None:
        """All of Redis that is ours, gone at once."""
        await self.redis.delete(*await self.redis.keys(f"{self.prefix}*"))

    async def report_spool(self, spool_id: str) -> None:
        """As the process does that has a spool, before anything is in it."""
        now_ms = time.time_ns() // 1_000_000
        log = EventLog(self.redis_url, self.prefix)
        try:
            report = SpoolReport("a node", now_ms, 0, 0, now_ms)
            await log.report_spool(spool_id, report)
        finally:
            await log.close()

    async def sql(self, query: str, *arguments: Any) -> list[Any]:
        """Ask Postgres, in this stack's schema."""
        assert self._connection is not None
        return await self._connection.fetch(query, *arguments)

    async def rows(self) -> list[Any]:
        """Every row of ``events``, in the order of the log."""
        return await self.sql(f"SELECT * FROM events ORDER BY {_LOG_ORDER}")

    async def count(self) -> int:
        """How many rows there are."""
        (row,) = await self.sql("SELECT count(*) AS n FROM events")
        number: int = row["n"]
        return number

    async def has_rows(self, number: int) -> bool:
        """Are there so many?"""
        return await self.count() == number

    async def stored(self, partition: int, lane: int = NORMAL) -> EntryId:
        """Up to where a stream has become rows."""
        (row,) = await self.sql(
            "SELECT epoch, seq FROM log_positions WHERE log_partition = $1 AND log_lane = $2",
            partition,
            LANES[lane],
        )
        return EntryId(row["epoch"], row["seq"])


def _sized(status: dict[str, Any]) -> dict[str, Any]:
    """As the actor says it, which adds its memory."""
    return {**status, "rss_bytes": rss_bytes()}
