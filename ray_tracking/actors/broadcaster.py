"""
The broadcaster: reads the log behind the shards and tells every replica what has changed.

It stands beside the path: nothing waits for it, and what it holds is made anew from Postgres
and the log when it starts. A life of it is an epoch of cursors, and so is what follows a gap
in what it has read.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ray_tracking import failpoints
from ray_tracking.actors.control import ControlWatch
from ray_tracking.actors.signal import Signal
from ray_tracking.clock import Clock
from ray_tracking.errors import LogUnavailable
from ray_tracking.events import LANES, TYPES_BY_CODE, Lane
from ray_tracking.pipeline.append import BadEntry, Entry, EntryId
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.broadcast import (
    BROADCASTED,
    MAX_BATCH_EVENTS,
    MAX_BROADCASTED,
    MAX_HEARD_BYTES,
    PUBLIC,
    Activity,
    Cursor,
    Frame,
    Hear,
    Interest,
    Poll,
    Polled,
    Ring,
    Shown,
    To,
    Watch,
    Watched,
    Watching,
    broadcasted,
    campaign_frames,
    figures_frame,
    silent_frame,
    system_frame,
)
from ray_tracking.pipeline.figures import Figures, Ledger
from ray_tracking.pipeline.flush import Where
from ray_tracking.pipeline.read_ahead import ReadAhead
from ray_tracking.pipeline.route import TYPE_MASK
from ray_tracking.pipeline.write import Follower, LogGap
from ray_tracking.stores.failures import StoreUnavailable
from ray_tracking.stores.log import EventLog
from ray_tracking.stores.log_reader import LogReader
from ray_tracking.stores.rollups import Rollups
from ray_tracking.tasks import wanted

#: From the beginning of one read to that of the next, where there is nothing more to read:
#: while somebody watches, and while nobody does.
_TICK_MS = 8
_UNWATCHED_TICK_MS = 100
_BLOCK_MS = 500
_ROWS_EVERY_MS = 1000
#: Between two questions, so many times as long as one takes.
_ROWS_SHARE = 4
#: How long a replica's question waits for frames, and for what the rows say.
POLL_MS = 10_000
_ROWS_WITHIN_S = 0.5
#: A campaign is watched for so long after a replica has said that it has subscribers.
_LINGER_MS = 60_000
#: Events are told for so long after an attached process has asked for them.
_EVENTS_FOR_MS = 30_000
_MAX_POLL_BYTES = 1024 * 1024
_BACKOFF = Backoff(first_s=0.1, longest_s=2.0)

log = structlog.get_logger("ray_tracking.broadcaster")

_read_poll = msgspec.msgpack.Decoder(Poll).decode
_read_hear = msgspec.msgpack.Decoder(Hear).decode
_read_watch = msgspec.msgpack.Decoder(Watch).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class BroadcasterConfig:
    """What a broadcaster needs to know. Travels to its process."""

    name: str
    redis_url: str = field(repr=False)
    redis_prefix: str
    database_url: str = field(repr=False)
    database_schema: str
    partitions: int
    clock_dir: Path | None = None
    failpoints_dir: Path | None = None
    log_level: str = "info"


class Broadcaster:
    """
    A plain class; :mod:`ray_tracking.actors.parts` makes it an actor.

    Args:
        config: Who it is.
        die: Ends this process. Called when it cannot go on.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, config: BroadcasterConfig, die: Callable[[str], None], clock: Clock) -> None:
        self._config = config
        self._die = die
        self._clock = clock
        self._log = EventLog(config.redis_url, config.redis_prefix)
        self._control = ControlWatch(config.name, self._log, lambda control: None)
        self._reader = LogReader(config.redis_url, config.redis_prefix)
        self._rollups: Rollups | None = None
        self._ring = Ring(self._beginning())
        self._interest = Interest(_LINGER_MS)
        #: What attached processes are told, and until when they want to hear of events.
        self._heard = Ring(self._beginning(), MAX_HEARD_BYTES)
        self._told = Signal()
        self._events_until_ms = 0
        self._ledger: Ledger | None = None
        self._followers: dict[Where, Follower] = {}
        self._ahead = ReadAhead([])
        #: Set when all that stood in the log at the start is counted.
        self._caught_up = asyncio.Event()
        self._added = Signal()
        self._read = Signal()
        self._watched = Signal()
        self._asked = Signal()
        #: How often the rows were asked, and how often in vain.
        self._rounds = 0
        self._rounds_done = Signal()
        self._tasks: list[asyncio.Task[None]] = []
        self._batched = False
        self._events = 0
        #: Why it does not read, and why it does not know what the rows say.
        self._trouble: str | None = None
        self._rows_trouble: str | None = None

    # -- life --------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work. Safe to call again."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run())]

    async def _run(self) -> None:
        try:
            target = await self._begin_at_last()
            if target is None:
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_loop(target))
                group.create_task(self._rows_loop())
                group.create_task(self._control.run())
        except* Exception as failed:
            log.exception("broadcaster failed")
            self._die(str(failed.exceptions[0]))

    async def _begin_at_last(self) -> Mapping[Where, EntryId] | None:
        """Begin, as soon as the log is in reach; None if that is not wanted any more."""
        attempt = 0
        while wanted():
            try:
                target = await self._begin()
            except LogUnavailable as error:
                self._trouble = str(error)
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
            else:
                return target if wanted() else None
        return None

    async def _begin(self) -> Mapping[Where, EntryId]:
        """Where to count from, and up to where everything is old."""
        partitions = range(self._config.partitions)
        target = await self._log.last_ids(partitions)
        await self._control.look()
        config = self._config
        self._rollups = await Rollups.open(
            config.database_url, config.database_schema, f"ray-tracking {config.name}"
        )
        try:
            positions, base = await self._rollups.totals()
            self._ledger = Ledger(positions, self._config.partitions, base)
        except StoreUnavailable as error:
            # Figures stay unknown until Postgres says what they are to begin with.
            self._rows_trouble = str(error)
            log.warning("counting without what is stored", reason=str(error))
            positions = dict(target)
            self._ledger = Ledger(positions, self._config.partitions, None)
        self._followers = {where: Follower(at) for where, at in positions.items()}
        self._ahead = ReadAhead(positions)
        return target

    async def drain(self) -> None:
        """Nothing waits for what it does."""

    async def close(self) -> None:
        """Stop, and let go of every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.close()
        await self._log.close()
        if self._rollups is not None:
            await self._rollups.close()

    async def status(self) -> dict[str, Any]:
        """Figures for health and stats; answers only while the loop is alive."""
        return {
            "name": self._config.name,
            "started": self._caught_up.is_set(),
            "events": self._events,
            "reading": self._trouble is None,
            "batched": self._batched,
            "watched": len(self._interest.campaigns),
            "ring_bytes": self._ring.size_bytes,
            "trouble": self._trouble or self._rows_trouble,
            #: Names the rules that it goes by.
            "control": self._control.version,
        }

    # -- asked by replicas and by the supervisor -------------------------------------

    async def poll(self, blob: bytes) -> bytes:
        """A :class:`Poll`; the :class:`Polled` comes when there are frames, or after a while."""
        asked = _read_poll(blob)
        if asked == Poll(self._ring.epoch, self._ring.last):
            await self._added.wait(POLL_MS)
        ring = self._ring
        offset = max(asked.offset, ring.start) if asked.epoch == ring.epoch else ring.start
        return _encode(Polled(ring.epoch, offset, ring.since(offset, _MAX_POLL_BYTES)))

    async def watch(self, blob: bytes) -> bytes:
        """A :class:`Watch`; answered by a :class:`Watching`."""
        campaigns = _read_watch(blob).campaigns
        await self._caught_up.wait()
        now_ms = self._clock()
        is_new = self._interest.lacks(campaigns)
        if is_new:
            self._add([silent_frame(self._ring.last + 1)])
        self._interest.add(campaigns, self._ring.last, now_ms)
        self._watched.send()
        if is_new:
            # What was not watched was not compared with the rows either.
            await self._ask_rows()
        ring, ledger = self._ring, self._ledger
        assert ledger is not None
        return _encode(
            Watching(
                ring.epoch,
                ring.last,
                {
                    campaign_id: Watched(
                        ledger.figures(campaign_id, now_ms), *self._interest.since(campaign_id)
                    )
                    for campaign_id in campaigns
                },
            )
        )

    async def hear(self, blob: bytes) -> bytes:
        """A :class:`Hear`; the :class:`Polled` comes when there is something, or after a while."""
        asked, heard = _read_hear(blob), self._heard
        if asked.events:
            self._events_until_ms = self._clock() + _EVENTS_FOR_MS
        if not asked.epoch:
            return _encode(Polled(heard.epoch, heard.last, []))
        if (asked.epoch, asked.offset) == heard.cursor:
            await self._told.wait(POLL_MS)
        offset = max(asked.offset, heard.start) if asked.epoch == heard.epoch else heard.start
        return _encode(Polled(heard.epoch, offset, heard.since(offset, _MAX_POLL_BYTES)))

    async def tell(self, name: str, data: Any) -> None:
        """Tell attached processes, and, where it is for them, live clients of the system."""
        self._tell(name, data)
        if name in PUBLIC:
            self._add([system_frame(name, data, self._ring.last + 1)])

    def _tell_events(self, entry: Entry) -> None:
        told = [broadcasted(row) for row in entry.rows]
        for start in range(0, len(told), MAX_BROADCASTED):
            self._tell(BROADCASTED, told[start : start + MAX_BROADCASTED])

    def _tell(self, name: str, data: Any) -> None:
        self._heard.add(system_frame(name, data, self._heard.last + 1))
        self._told.send()

    async def set_batched(self, batched: bool) -> None:
        """The processing mode is ``BATCH``, or is not."""
        self._batched = batched

    # -- reading -----------------------------------------------------------------

    async def _read_loop(self, target: Mapping[Where, EntryId]) -> None:
        attempt = 0
        while wanted():
            try:
                await self._read_once()
            except (LogUnavailable, BadEntry) as error:
                self._trouble = str(error)
                log.warning("log not read", reason=str(error))
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
                continue
            attempt = 0
            self._trouble = None
            if not self._caught_up.is_set() and self._has_read(target):
                self._caught_up.set()
                log.info("live", epoch=self._ring.epoch, events=self._events)

    async def _read_once(self) -> None:
        if not self._followers:
            await asyncio.sleep(_BLOCK_MS / 1000)
            return
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        reading = self._ahead.plan(self._followers.keys())
        found = await self._reader.read(
            {where: self._followers[where].position for where in reading.wheres},
            max_entries=reading.max_entries,
            block_ms=_BLOCK_MS if reading.wait else None,
        )
        failpoints.reach("broadcaster.read")
        self._ahead.learn(reading, found)
        if found:
            self._follow(found)
            self._read.send()
        for text in self._reader.unreadable.values():
            raise BadEntry(text)  # the others have been read, and will be again
        if not self._ahead.behind and reading.wait:
            # A read costs the same for one entry as for hundreds.
            tick_ms = _TICK_MS if self._interest.campaigns else _UNWATCHED_TICK_MS
            took_ms = (loop.time() - began_s) * 1000
            await self._watched.wait(max(0.0, tick_ms - took_ms) if found else 0)

    def _follow(self, found: Mapping[Where, list[Entry]]) -> None:
        """Count, and make the frames: nothing is awaited in between."""
        assert self._ledger is not None
        activities: dict[str, Activity] = {}
        for where, entries in found.items():
            follower = self._followers[where]
            try:
                for entry in entries:
                    follower.accept(entry)
                    self._count(where, entry, activities)
            except LogGap as gap:
                # Whoever writes rows reports it. Here it goes on when Postgres has passed it.
                log.error("gap in the log", partition=where[0], lane=LANES[where[1]], gap=str(gap))
                del self._followers[where]
        now_ms = self._clock()
        self._interest.expire(now_ms)
        frames_before = self._ring.last
        for campaign_id, activity in activities.items():
            to = self._interest.of(campaign_id)
            figures = self._ledger.figures(campaign_id, now_ms)
            if to is not None and figures is not None and activity.events:
                for frame in campaign_frames(
                    campaign_id,
                    activity,
                    figures,
                    self._ledger.last_event(campaign_id),
                    first_offset=self._ring.last + 1,
                    to=to,
                    batched=self._batched,
                ):
                    self._ring.add(frame)
        if self._ring.last > frames_before:
            self._added.send()

    def _count(self, where: Where, entry: Entry, activities: dict[str, Activity]) -> None:
        assert self._ledger is not None
        header = entry.header
        watched = self._interest.among(header.keys)
        for campaign_id in watched:
            if campaign_id not in activities:
                activities[campaign_id] = Activity(self._ledger.figures(campaign_id, self._clock()))
        tallies = self._ledger.count(where, entry.id, header)
        self._events += header.count
        if self._events_until_ms > self._clock():
            self._tell_events(entry)
        for campaign_id in watched:
            activity = activities[campaign_id]
            activity.events += tallies[campaign_id].events
            detailed = To.DETAIL in (self._interest.of(campaign_id) or To(0))
            if LANES[where[1]] is Lane.HIGH:
                activity.urgent_events += tallies[campaign_id].events
                shown, wanted_here = activity.urgent, detailed
            else:
                shown, wanted_here = activity.shown, detailed or self._batched
            room = MAX_BATCH_EVENTS - len(shown)
            if wanted_here and room > 0:
                shown += _shown(entry, campaign_id, room)

    def _has_read(self, positions: Mapping[Where, EntryId]) -> bool:
        """Of the streams that do not stand still."""
        assert self._ledger is not None
        return self._ledger.has_read(
            {where: at for where, at in positions.items() if where in self._followers}
        )

    # -- what the rows say ---------------------------------------------------------

    async def _rows_loop(self) -> None:
        assert self._rollups is not None
        loop = asyncio.get_running_loop()
        while wanted():
            asked = self._interest.campaigns
            began_s = loop.time()
            try:
                positions, totals = await self._rollups.totals(asked)
                await self._reconcile(positions, totals, asked)
                self._rows_trouble = None
            except StoreUnavailable as error:
                self._rows_trouble = str(error)
            self._rounds += 1
            self._rounds_done.send()
            took_ms = (loop.time() - began_s) * 1000
            await self._asked.wait(max(_ROWS_EVERY_MS, _ROWS_SHARE * took_ms))

    async def _ask_rows(self) -> None:
        """Return when all that is watched now was compared with the rows, or could not be."""
        # The round that is under way may have begun before.
        done = self._rounds + 2
        try:
            async with asyncio.timeout(_ROWS_WITHIN_S):
                while self._rounds < done:
                    self._asked.send()
                    await self._rounds_done.wait()
        except TimeoutError:
            return

    async def _reconcile(
        self,
        positions: Mapping[Where, EntryId],
        totals: Mapping[str, Mapping[str, Any]],
        asked: list[str],
    ) -> None:
        ledger = self._ledger
        assert ledger is not None
        self._pass_gaps(positions)
        until_ms = self._clock() + _ROWS_EVERY_MS
        while not self._has_read(positions):
            # The writer was faster.
            if self._clock() > until_ms:
                return
            await self._read.wait(_ROWS_EVERY_MS)
        changes = ledger.reconcile(positions, totals, asked, self._clock())
        for campaign_id, change in changes.items():
            self._add([self._figures_frame(campaign_id, change.before, change.after)])

    def _figures_frame(self, campaign_id: str, before: Figures | None, after: Figures) -> Frame:
        assert self._ledger is not None
        last = self._ledger.last_event(campaign_id)
        return figures_frame(campaign_id, before, after, last, self._ring.last + 1)

    def _pass_gaps(self, positions: Mapping[Where, EntryId]) -> None:
        """Go on where entries are missing and Postgres has passed them; a new epoch says so."""
        assert self._ledger is not None
        stuck = [where for where in positions if where not in self._followers]
        passed = [where for where in stuck if positions[where] > self._ledger.read[where]]
        for where in passed:
            self._ledger.skip(where, positions[where])
            self._followers[where] = Follower(positions[where])
            self._ahead.revive(where)
        if passed:
            log.warning("events were missed; cursors begin anew", partitions=len(passed))
            self._ring = Ring(self._beginning())
            self._interest = Interest(_LINGER_MS)
            self._added.send()

    # -- frames ------------------------------------------------------------------

    def _beginning(self) -> Cursor:
        """Of an epoch later than any before, with larger offsets."""
        begun = self._clock() * 1000
        return Cursor(begun, begun)

    def _add(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._ring.add(frame)
        self._added.send()


def _shown(entry: Entry, campaign_id: str, at_most: int) -> list[Shown]:
    """The first of a campaign's events in an entry."""
    header = entry.header
    flags, occurred_us = array("H", header.flags), array("q", header.occurred_us)
    events: Iterable[tuple[int, int, bytes]] = zip(flags, occurred_us, entry.rows, strict=True)
    if len(header.keys) > 1:
        key = header.keys.index(campaign_id)
        indexes = array("H", header.key_index)
        events = (event for event, its in zip(events, indexes, strict=True) if its == key)
    return [
        Shown(TYPES_BY_CODE[its_flags & TYPE_MASK], its_us, row)
        for its_flags, its_us, row in islice(events, at_most)
    ]
