"""
The event log in Redis Streams: one stream for each partition and lane.

An append is acknowledged by the server only after its fsync (``appendfsync always``).
Its outcome is one of four, and never guessed: in the log, refused, unclear (repeat the
same id and bytes), or fenced. Nothing here retries by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import chain
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

from ray_tracking import failpoints
from ray_tracking.errors import Fenced, LogUnavailable
from ray_tracking.events import LANES
from ray_tracking.pipeline.append import (
    ORIGIN,
    Entry,
    EntryId,
    Header,
    Kind,
    decode_entry,
    encode_entry,
    next_epoch,
)
from ray_tracking.pipeline.places import Append
from ray_tracking.pipeline.spooling import SpoolReport, decode_reports, encode_report
from ray_tracking.stores.log_setup import (
    Assignment,
    LogIdentity,
    assign,
    identify,
    is_identified,
    read_assignment,
)
from ray_tracking.stores.wire import Wire

#: How much of a stream is read at a time, looking back.
_LOOK_BACK_ENTRIES = 32


class Appended(Enum):
    """What became of an append."""

    OK = "ok"
    #: Definitely not in the log, and it may be tried again.
    REFUSED = "refused"
    UNCLEAR = "unclear"
    #: A later owner has written; this one must stop.
    FENCED = "fenced"
    #: The stream is gone: flushed, or another server answers.
    GONE = "gone"


class Takeover(NamedTuple):
    """What a new owner starts from."""

    epoch: int
    #: Events ever appended, for each lane.
    totals: list[int]
    #: The entries to rebuild the windows from, oldest first, for each lane.
    tail: list[list[Entry]]


def stream_key(prefix: str, partition: int, lane: int) -> str:
    """The stream of a partition and lane; the hash tag keeps a partition on one node."""
    return f"{prefix}log:{{{partition}}}:{LANES[lane]}"


@contextmanager
def answering() -> Iterator[None]:
    """Turn whatever keeps Redis from answering into one error."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise LogUnavailable(f"the event log does not answer: {error}") from error


def _outcome(answer: Any) -> Appended:
    """What the server's answer to an append means."""
    if isinstance(answer, hiredis.ReplyError):
        return Appended.FENCED if "equal or smaller" in str(answer) else Appended.REFUSED
    return Appended.GONE if answer is None else Appended.OK


class EventLog:
    """
    Reads and appends.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        prefix: Before each key.
        timeout_s: How long one answer may take.
    """

    def __init__(self, url: str, prefix: str, timeout_s: float = 5.0) -> None:
        self.prefix = prefix
        self._url = url
        self._timeout_s = timeout_s
        #: A shard takes over hundreds of partitions at once; they wait for each other here.
        self._pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=None,
            max_connections=64,
            timeout=None,
        )
        self.redis: Redis = Redis(connection_pool=self._pool)
        self._appender: Wire | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._appender is not None:
            await self._appender.close()
        await self.redis.aclose()
        await self._pool.disconnect()

    # -- owning a partition ------------------------------------------------

    async def take_over(
        self,
        partition: int,
        *,
        stored_epoch: int,
        stored_totals: Sequence[int],
        now_s: float,
        since_ms: int,
    ) -> Takeover:
        """
        Become the owner of a partition, and read what its windows need.

        Args:
            partition: Which one.
            stored_epoch: The epoch of the position in Postgres, 0 if it does not answer.
            stored_totals: What Postgres has seen of each lane. A log that was lost goes on
                counting from there.
            now_s: Unix time.
            since_ms: How far back, by ``appended_ms``, the windows reach.

        Raises:
            Fenced: If another contender was faster in any lane.
            LogUnavailable: If the server does not answer, or refuses.
        """
        keys = [stream_key(self.prefix, partition, lane) for lane in range(len(LANES))]
        with answering():
            last = [await self._last(key) for key in keys]
            epoch = next_epoch(
                [entry.id.epoch if entry else 0 for entry in last], stored_epoch, now_s
            )
            marker_id, chain_id = EntryId(epoch, 0), EntryId(epoch, 1)
            # All markers before all else: whoever loses one has changed nothing that counts.
            for key in keys:
                await self._mark(
                    key, marker_id, Header(kind=Kind.MARKER, appended_ms=int(now_s * 1000))
                )
            failpoints.reach("takeover.marked")
            totals = []
            for key, stored_total in zip(keys, stored_totals, strict=True):
                before = await self._last_but_markers(key, marker_id)
                totals.append(max(before.header.total if before else 0, stored_total))
                chain = Header(
                    kind=Kind.CHAIN,
                    total=totals[-1],
                    previous=str(before.id if before else ORIGIN),
                    appended_ms=int(now_s * 1000),
                )
                await self._mark(key, chain_id, chain)
            failpoints.reach("takeover.chained")
            tail = [await self._look_back(key, marker_id, since_ms) for key in keys]
            failpoints.reach("takeover.read")
        return Takeover(epoch, totals, tail)

    async def append(self, appends: Sequence[Append]) -> list[Appended]:
        """
        Append entries in one round trip; each outcome stands for itself.

        A repeat of an unclear append goes the same way: an id that is there already
        is compared with ours, byte for byte.
        """
        commands = [
            (
                "XADD",
                stream_key(self.prefix, append.partition, append.lane),
                "NOMKSTREAM",
                str(append.id),
                *chain.from_iterable(append.fields.items()),
            )
            for append in appends
        ]
        try:
            connection = await self._connect_appender()
        except (OSError, TimeoutError):
            # Nothing was sent, so whatever was clear stays clear.
            return [Appended.REFUSED] * len(appends)
        results: list[Appended] = []
        try:
            await connection.send(commands)
            for _ in appends:
                results.append(_outcome(await connection.receive()))
        except BaseException as error:
            # Cut off between question and answer: the rest may have arrived or not.
            await self._drop_appender()
            if not isinstance(error, OSError | TimeoutError):
                raise
            results += [Appended.UNCLEAR] * (len(appends) - len(results))
        return [
            await self._compare(append) if result is Appended.FENCED else result
            for append, result in zip(appends, results, strict=True)
        ]

    async def last_ids(self, partitions: Iterable[int]) -> dict[tuple[int, int], EntryId]:
        """The id of the last entry of each stream; the origin for an empty or missing one."""
        streams = [(partition, lane) for partition in partitions for lane in range(len(LANES))]
        with answering():
            async with self.redis.pipeline(transaction=False) as pipe:
                for partition, lane in streams:
                    pipe.xrevrange(stream_key(self.prefix, partition, lane), count=1)
                lasts = await pipe.execute()
        return {
            stream: EntryId.parse(found[0][0]) if found else ORIGIN
            for stream, found in zip(streams, lasts, strict=True)
        }

    async def entry(self, partition: int, lane: int, entry_id: EntryId) -> Entry | None:
        """The entry of that id, if it is still there."""
        with answering():
            found = await self.redis.xrange(
                stream_key(self.prefix, partition, lane), str(entry_id), str(entry_id)
            )
        return decode_entry(*found[0]) if found else None

    async def trim(self, partition: int, lane: int, keep_from: EntryId) -> int:
        """Forget the entries before an id, exactly; returns how many."""
        key = stream_key(self.prefix, partition, lane)
        with answering():
            return int(await self.redis.xtrim(key, minid=str(keep_from), approximate=False))

    # -- beside the streams ------------------------------------------------

    async def assignment(self) -> Assignment | None:
        """Which shard owns which partitions."""
        with answering():
            return await read_assignment(self.redis, self.prefix)

    async def put_back(self, identity: LogIdentity, shards: dict[str, list[int]]) -> bool:
        """
        Write what stands beside the log again, if it is not as it was: the log was emptied,
        replaced, or set back.

        Args:
            identity: What the log was made with.
            shards: Who owns which partitions.

        Returns:
            Whether it was not.

        Raises:
            LogUnavailable: The server does not answer.
            StartError: This log was made for another number of partitions.
        """
        with answering():
            current = await read_assignment(self.redis, self.prefix)
            there = await is_identified(self.redis, self.prefix)
            if there and current is not None and current.shards == shards:
                return False
            await identify(
                self.redis,
                self.prefix,
                partitions=identity.partitions,
                secret=identity.secret,
            )
            await assign(self.redis, self.prefix, shards)
            return True

    async def gaps(self) -> dict[int, str]:
        """Partitions in which a reader found entries missing, and what it found."""
        with answering():
            found: dict[bytes, bytes] = await self.redis.hgetall(f"{self.prefix}gaps")
        return {int(number): text.decode() for number, text in found.items()}

    async def report_gap(self, partition: int, text: str) -> None:
        """Shut a partition until an operator accepts what is missing."""
        with answering():
            await self.redis.hset(f"{self.prefix}gaps", str(partition), text)

    async def spools(self) -> dict[str, SpoolReport]:
        """What every process that may spool says of its spool."""
        with answering():
            return decode_reports(await self.redis.hgetall(f"{self.prefix}spools"))

    async def report_spool(self, spool_id: str, report: SpoolReport) -> None:
        """Say how a spool is."""
        with answering():
            await self.redis.hset(f"{self.prefix}spools", spool_id, encode_report(report))

    async def forget_spool(self, spool_id: str) -> bool:
        """A spool is no more; whether it was known."""
        with answering():
            return bool(await self.redis.hdel(f"{self.prefix}spools", spool_id))

    async def size_bytes(self, partitions: Iterable[int]) -> int:
        """What the streams of some partitions take in the server's memory, about."""
        with answering():
            async with self.redis.pipeline(transaction=False) as pipe:
                for partition in partitions:
                    for lane in range(len(LANES)):
                        pipe.memory_usage(stream_key(self.prefix, partition, lane))
                return sum(size or 0 for size in await pipe.execute())

    async def forget_gap(self, partition: int) -> None:
        """Open a partition again."""
        with answering():
            await self.redis.hdel(f"{self.prefix}gaps", str(partition))

    # -- reading -----------------------------------------------------------

    async def read(
        self,
        positions: dict[tuple[int, int], EntryId],
        *,
        max_entries: int,
        block_ms: int | None,
    ) -> list[tuple[int, int, list[Entry]]]:
        """
        The entries after each position, as ``(partition, lane, entries)``.

        Args:
            positions: Where each reader of a (partition, lane) stands.
            max_entries: At most as many of each stream.
            block_ms: How long to wait for the first; None not to wait.

        Raises:
            LogUnavailable: If the server does not answer.
        """
        names = {stream_key(self.prefix, *where).encode(): where for where in positions}
        streams: Any = {
            stream_key(self.prefix, *where): str(after) for where, after in positions.items()
        }
        with answering():
            answer = await self.redis.xread(streams, count=max_entries, block=block_ms)
        return [
            (*names[key], [decode_entry(*item) for item in items]) for key, items in answer or ()
        ]

    # -- below -------------------------------------------------------------

    async def _connect_appender(self) -> Wire:
        """One connection of its own: appends of one owner never overtake each other."""
        if self._appender is None:
            self._appender = await Wire.open(self._url, self._timeout_s)
        return self._appender

    async def _drop_appender(self) -> None:
        connection, self._appender = self._appender, None
        if connection is not None:
            await connection.close()

    @property
    def appender_connected(self) -> bool:
        """False after a connection was lost, until the next append opens another."""
        return self._appender is not None

    async def _compare(self, append: Append) -> Appended:
        """The id is taken: by our own unclear append, or by another owner's entry?"""
        key = stream_key(self.prefix, append.partition, append.lane)
        try:
            found = await self.redis.xrange(key, str(append.id), str(append.id))
        except (RedisError, OSError, TimeoutError):
            return Appended.UNCLEAR
        return Appended.OK if found and found[0][1] == append.fields else Appended.FENCED

    async def _last(self, key: str, before: EntryId | None = None) -> Entry | None:
        end = f"({before}" if before else "+"
        found = await self.redis.xrevrange(key, end, "-", count=1)
        return decode_entry(*found[0]) if found else None

    async def _last_but_markers(self, key: str, before: EntryId) -> Entry | None:
        """
        What really stands before a marker.

        Not the marker of a takeover that was cut off or lost: it knows no total, and a
        chain that named it would say nothing of what stood before it.
        """
        while (entry := await self._last(key, before)) and entry.header.kind is Kind.MARKER:
            before = entry.id
        return entry

    async def _mark(self, key: str, entry_id: EntryId, header: Header) -> None:
        try:
            await self.redis.xadd(key, encode_entry(header), id=str(entry_id))
        except ResponseError as error:
            if "equal or smaller" not in str(error):
                raise
            raise Fenced(f"{key} has an owner with an epoch of {entry_id.epoch} or later") from None

    async def _look_back(self, key: str, before: EntryId, since_ms: int) -> list[Entry]:
        """
        The batches appended since then, oldest first.

        Judged by ``appended_ms``, not by the events' own times: an event that waited
        in a spool is appended late, and may stand after younger ones.
        """
        batches: list[Entry] = []
        end = f"({before}"
        while found := await self.redis.xrevrange(key, end, "-", count=_LOOK_BACK_ENTRIES):
            entries = [decode_entry(*item) for item in found]
            batches += [
                e
                for e in entries
                if e.header.kind is Kind.BATCH and e.header.appended_ms >= since_ms
            ]
            if entries[-1].header.appended_ms < since_ms:
                break
            end = f"({entries[-1].id}"
        batches.reverse()
        return batches
