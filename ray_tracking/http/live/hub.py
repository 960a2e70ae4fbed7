"""
The hub of a replica: a copy of the broadcaster's ring, and who is to hear of it.

A replica asks the broadcaster once, however many clients it has; what they missed it finds in
its own copy, whichever replica told them before. While the broadcaster is away everybody stays
connected; when another is there, whose frames are not those that somebody waits for, each
subscriber hears so: a new ``subscribed`` with ``recovered: false`` and the figures as they are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec
import structlog

from ray_tracking.clock import Clock
from ray_tracking.errors import TrackingError
from ray_tracking.http.live.subscriber import GOING_AWAY, Subscriber
from ray_tracking.pipeline.backoff import Backoff
from ray_tracking.pipeline.broadcast import (
    SYSTEM,
    Cursor,
    Frame,
    Poll,
    Polled,
    Ring,
    To,
    Watch,
    Watching,
)
from ray_tracking.pipeline.figures import Figures
from ray_tracking.pipeline.formulas import campaign_stats
from ray_tracking.pipeline.outbox import MAX_OUTBOX_BYTES, Message, message

Call = Callable[[bytes], Awaitable[bytes]]

#: The broadcaster answers within ten seconds, frames or none.
_POLL_WITHIN_S = 15.0
_WATCH_WITHIN_S = 5.0
_SAY_AGAIN_S = 10.0
_LOOK_EVERY_S = 1.0
#: A campaign without subscribers is kept for so long, for those who come back.
_LINGER_MS = 60_000
#: A subscriber that is not answered for so long hears why.
_PATIENCE_MS = 3_000
#: Connections are ended one after the other, so that not all clients come back at once.
_GOODBYES_WITHIN_S = 3.0
_EACH_GOODBYE_S = 0.002
_BACKOFF = Backoff(first_s=0.05, longest_s=1.0)

log = structlog.get_logger("ray_tracking.live")

_encode = msgspec.msgpack.Encoder().encode
_read_polled = msgspec.msgpack.Decoder(Polled).decode
_read_watching = msgspec.msgpack.Decoder(Watching).decode


class _Waiting(msgspec.Struct, eq=False):
    """A subscription that is not answered yet."""

    subscriber: Subscriber
    to: To
    cursor: Cursor | None
    since_ms: int
    told: bool = False


class _Campaign:
    """What this replica knows of a campaign."""

    def __init__(self) -> None:
        #: What is asked of the broadcaster, and what it has said yes to in this epoch.
        self.wanted = To(0)
        self.watched = To(0)
        self.since = {To.PLAIN: 0, To.DETAIL: 0}
        self.figures: Figures | None = None
        #: The last frame that is in the figures.
        self.offset = 0
        self.subscribers: dict[Subscriber, To] = {}
        self.waiting: list[_Waiting] = []
        self.left_ms = 0

    def take(self, figures: Figures | None, offset: int) -> bool:
        """Newer figures; whether any of them is below what was said before."""
        if offset < self.offset:
            return False
        before, self.figures, self.offset = self.figures, figures, offset
        return before is not None and figures is not None and figures.is_below(before)


class Hub:
    """
    Fans frames out.

    Args:
        poll: Asks the broadcaster for frames.
        watch: Tells it what is watched here.
        clock: Unix milliseconds, never going back.
    """

    def __init__(self, poll: Call, watch: Call, clock: Clock) -> None:
        self._poll = poll
        self._watch = watch
        self._clock = clock
        self._ring = Ring(Cursor(0, 0))
        self._moved = asyncio.Event()
        self._campaigns: dict[str, _Campaign] = {}
        self._system: dict[str, Frame] = {}
        self._system_subscribers: set[Subscriber] = set()
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        #: What each connection is subscribed to.
        self._connections: dict[Subscriber, set[str]] = {}
        self.deliveries = 0

    # -- life --------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to ask."""
        self._tasks = [
            asyncio.create_task(loop)
            for loop in (self._poll_loop(), self._watch_loop(), self._look_loop())
        ]

    async def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def say_goodbye(self) -> None:
        """End every connection: somebody else will serve them, not all at the same moment."""
        leaving = list(self._connections)
        pause_s = min(_EACH_GOODBYE_S, _GOODBYES_WITHIN_S / max(1, len(leaving)))
        for subscriber in leaving:
            subscriber.close(GOING_AWAY, "going away")
            await asyncio.sleep(pause_s)

    @property
    def connections(self) -> int:
        """Clients that are connected here."""
        return len(self._connections)

    @property
    def cursor(self) -> str:
        """Of whoever has all that was sent up to now."""
        return str(self._ring.cursor)

    # -- subscribers ---------------------------------------------------------------

    def join(self, subscriber: Subscriber) -> None:
        """A client has connected."""
        self._connections[subscriber] = set()

    def leave(self, subscriber: Subscriber) -> None:
        """It has gone."""
        for campaign_id in self._connections.pop(subscriber, ()):
            self._remove(subscriber, campaign_id)
        self._system_subscribers.discard(subscriber)

    def subscriptions(self, subscriber: Subscriber) -> int:
        """How many campaigns a client watches."""
        return len(self._connections[subscriber])

    def is_subscribed(self, subscriber: Subscriber, campaign_id: str) -> bool:
        """Whether it watches this one."""
        return campaign_id in self._connections[subscriber]

    def subscribe(
        self, subscriber: Subscriber, campaign_id: str, *, detailed: bool, cursor: str | None
    ) -> None:
        """
        Tell it of a campaign from now on, or from its cursor on. The answer is a message
        ``subscribed``, as soon as it is known how the campaign stands.
        """
        self._connections[subscriber].add(campaign_id)
        campaign = self._campaigns.setdefault(campaign_id, _Campaign())
        to = To.DETAIL if detailed else To.PLAIN
        campaign.subscribers.pop(subscriber, None)
        campaign.waiting = [each for each in campaign.waiting if each.subscriber is not subscriber]
        parsed = Cursor.parse(cursor) if cursor else None
        waiting = _Waiting(subscriber, to, parsed, self._clock())
        if to in campaign.watched:
            self._admit(campaign_id, campaign, waiting)
            return
        campaign.waiting.append(waiting)
        campaign.wanted |= to
        self._wanted.set()

    def unsubscribe(self, subscriber: Subscriber, campaign_id: str) -> None:
        """Tell it of this campaign no more."""
        self._connections[subscriber].discard(campaign_id)
        self._remove(subscriber, campaign_id)

    def subscribe_system(self, subscriber: Subscriber) -> None:
        """Tell it how the system is: first as it was said last, in the order in which it was."""
        self._system_subscribers.add(subscriber)
        for frame in sorted(self._system.values(), key=attrgetter("offset")):
            subscriber.send(Message.of(frame, self._ring.epoch))

    def _remove(self, subscriber: Subscriber, campaign_id: str) -> None:
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            return
        campaign.subscribers.pop(subscriber, None)
        campaign.waiting = [each for each in campaign.waiting if each.subscriber is not subscriber]
        campaign.left_ms = self._clock()

    def _admit(
        self, campaign_id: str, campaign: _Campaign, waiting: _Waiting, *, went_back: bool = False
    ) -> None:
        """Say how the campaign stands, and what was missed if that is known."""
        missed = self._missed(campaign_id, campaign, waiting)
        figures, cursor = campaign.figures, self._ring.cursor
        if missed and waiting.cursor is not None:
            # What follows begins where the client stands, so nothing goes back for it.
            figures, cursor = missed[0].before, waiting.cursor
        data = {
            "campaignId": campaign_id,
            "recovered": missed is not None,
            "snapshot": _stats(campaign_id, figures),
        }
        if went_back:
            data["correction"] = True
        waiting.subscriber.send(message("subscribed", data, str(cursor)))
        for frame in missed or ():
            waiting.subscriber.send(Message.of(frame, self._ring.epoch))
        campaign.subscribers[waiting.subscriber] = waiting.to

    def _missed(
        self, campaign_id: str, campaign: _Campaign, waiting: _Waiting
    ) -> list[Frame] | None:
        """What a subscriber has missed; None if that cannot be told, or is too much."""
        cursor = waiting.cursor
        if cursor is None or cursor.offset < campaign.since[waiting.to]:
            return None
        frames = self._ring.missed(campaign_id, cursor)
        if frames is None:
            return None
        frames = [frame for frame in frames if frame.to & waiting.to]
        too_much = sum(frame.size_bytes for frame in frames) > MAX_OUTBOX_BYTES // 2
        return None if too_much else frames

    # -- the broadcaster -------------------------------------------------------------

    async def _poll_loop(self) -> None:
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(_POLL_WITHIN_S):
                    answer = await self._poll(_encode(Poll(self._ring.epoch, self._ring.last)))
            except (TrackingError, TimeoutError) as error:
                log.debug("broadcaster not reached", reason=repr(error))
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1
                continue
            attempt = 0
            await self._take(_read_polled(answer))

    async def _take(self, polled: Polled) -> None:
        if polled.epoch != self._ring.epoch or polled.start != self._ring.last:
            self._begin_anew(Cursor(polled.epoch, polled.start))
        for frame in polled.frames:
            self._ring.add(frame)
            self._fan_out(frame)
        self._moved.set()
        # Whoever wrote to us in the meantime has its turn.
        await asyncio.sleep(0)

    def _begin_anew(self, cursor: Cursor) -> None:
        """These are not the frames that follow: nobody may take them for such."""
        self._ring = Ring(cursor)
        self._system.clear()
        now_ms = self._clock()
        for campaign in self._campaigns.values():
            campaign.watched = To(0)
            campaign.waiting += [
                _Waiting(subscriber, to, None, now_ms)
                for subscriber, to in campaign.subscribers.items()
            ]
            campaign.subscribers.clear()
        self._wanted.set()

    def _fan_out(self, frame: Frame) -> None:
        if not frame.to:
            return
        if frame.topic == SYSTEM:
            self._system[frame.name] = frame
            subscribers = list(self._system_subscribers)
        else:
            campaign = self._campaigns.get(frame.topic)
            if campaign is None:
                return
            campaign.take(frame.after, frame.offset)
            subscribers = [its for its, to in campaign.subscribers.items() if frame.to & to]
        if subscribers:
            told = Message.of(frame, self._ring.epoch)
            for subscriber in subscribers:
                subscriber.send(told)
            self.deliveries += len(subscribers)

    async def _watch_loop(self) -> None:
        attempt = 0
        said_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(_SAY_AGAIN_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            everything = loop.time() - said_s > _SAY_AGAIN_S
            asked = {
                campaign_id: int(campaign.wanted)
                for campaign_id, campaign in self._campaigns.items()
                if everything or campaign.wanted not in campaign.watched
            }
            try:
                if asked:
                    await self._say(asked)
                attempt = 0
                if everything:
                    said_s = loop.time()
            except (TrackingError, TimeoutError) as error:
                log.debug("broadcaster not reached", reason=repr(error))
                self._wanted.set()
                await asyncio.sleep(_BACKOFF.wait_s(attempt, random.random()))
                attempt += 1

    async def _say(self, asked: dict[str, int]) -> None:
        async with asyncio.timeout(_WATCH_WITHIN_S):
            answer = _read_watching(await self._watch(_encode(Watch(asked))))
            while self._ring.epoch < answer.epoch or self._ring.last < answer.offset:
                self._moved.clear()
                await self._moved.wait()
        if self._ring.epoch != answer.epoch:
            self._wanted.set()  # another broadcaster has taken its place meanwhile
            return
        for campaign_id, its in answer.campaigns.items():
            campaign = self._campaigns.get(campaign_id)
            if campaign is None:
                continue
            went_back = campaign.take(its.figures, answer.offset)
            campaign.watched |= To(asked[campaign_id])
            campaign.since = {To.PLAIN: its.plain_since, To.DETAIL: its.detail_since}
            admitted = [each for each in campaign.waiting if each.to in campaign.watched]
            campaign.waiting = [each for each in campaign.waiting if each not in admitted]
            for waiting in admitted:
                self._admit(campaign_id, campaign, waiting, went_back=went_back)

    async def _look_loop(self) -> None:
        """Give up who is too slow, forget what nobody watches, say who has to wait and why."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now_ms = self._clock()
            for subscriber in list(self._connections):
                subscriber.look()
            for campaign_id, campaign in list(self._campaigns.items()):
                for waiting in campaign.waiting:
                    if not waiting.told and now_ms - waiting.since_ms > _PATIENCE_MS:
                        waiting.told = True
                        waiting.subscriber.send(self.error(*_AWAY))
                if campaign.subscribers or campaign.waiting:
                    campaign.left_ms = now_ms
                elif now_ms - campaign.left_ms > _LINGER_MS:
                    del self._campaigns[campaign_id]

    def error(self, code: str, text: str) -> Message:
        """The message that tells a client what is wrong."""
        return message("error", {"code": code, "message": text}, self.cursor)


_AWAY = "live_unavailable", "live updates are out of reach for now; you stay subscribed"


def _stats(campaign_id: str, figures: Figures | None) -> dict[str, Any] | None:
    """None while nobody knows the figures: Postgres has been away since the broadcaster began."""
    if figures is None:
        return None
    as_of = datetime.fromtimestamp(figures.at_ms / 1000, UTC)
    return campaign_stats(campaign_id, figures.columns(), as_of=as_of)
