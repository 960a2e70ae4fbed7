"""
Frames: what subscribers are told, ready-encoded, in a ring.

The broadcaster makes each frame once. Every replica keeps a copy of the ring and fans it out
to its own subscribers, so whoever comes back with a cursor finds on any replica what was
missed, or hears that it is not there any more.

Offsets are contiguous within an epoch, which is one life of the broadcaster. They begin with
the microseconds at which it began, so that a later epoch has larger ones: an offset is the
``version`` of figures too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import orjson

from ray_tracking.events import EventType
from ray_tracking.pipeline.figures import Figures, LastEvent, iso_time
from ray_tracking.pipeline.rows import COLUMNS, read_fields

#: Of the broadcaster's ring, and of each replica's copy.
MAX_RING_BYTES = 8 * 1024 * 1024
#: So many events of a campaign in one tick have a detailed frame each; more share a batch.
MAX_SINGLE_EVENTS = 16
#: So many events of a tick are in a batch; the others are counted as dropped.
MAX_BATCH_EVENTS = 100
#: Of the ring of what attached processes are told.
MAX_HEARD_BYTES = 4 * 1024 * 1024
#: So many events are in one frame of :data:`BROADCASTED`.
MAX_BROADCASTED = 500
#: The topic of frames about the system, which no campaign can have.
SYSTEM = ""
#: These say how everything is: a later one makes an earlier one worthless.
STATES = frozenset({"metrics_collected", "health_check"})
#: What a frame takes beside its data.
_FRAME_BYTES = 600

PROGRESS = "campaign_progress"
DETAILED = "campaign_progress_detailed"
BATCH = "progress_batch"
#: To attached processes that ask for it: events that were handed to the live log.
BROADCASTED = "event_broadcasted"
#: What live clients are told of the system; attached processes hear more.
PUBLIC = frozenset(
    {"backpressure_changed", "processing_mode_changed", "health_check", "metrics_collected"}
)


class To(IntFlag):
    """Whom a frame is for."""

    PLAIN = 1
    DETAIL = 2
    ALL = 3


class Cursor(NamedTuple):
    """Where a subscriber stands: all frames up to this one have reached it."""

    epoch: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read a cursor; None if it is none of ours, which is then one that is lost."""
        epoch, _, offset = text.partition("-")
        if not (epoch.isascii() and epoch.isdigit() and offset.isascii() and offset.isdigit()):
            return None
        return cls(int(epoch), int(offset)) if len(text) <= 40 else None


class Frame(msgspec.Struct, array_like=True, frozen=True, eq=False):
    """One message to subscribers. ``data`` is JSON."""

    offset: int
    #: A campaign, or :data:`SYSTEM`.
    topic: str
    name: str
    to: int
    data: bytes
    #: A campaign's figures before and with this frame, where they are known.
    before: Figures | None = None
    after: Figures | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data) + _FRAME_BYTES


class Ring:
    """
    The last frames.

    Args:
        cursor: Before the first frame.
        max_bytes: How many of them are kept.
    """

    def __init__(self, cursor: Cursor, max_bytes: int = MAX_RING_BYTES) -> None:
        self.epoch = cursor.epoch
        #: The last frame that was added.
        self.last = cursor.offset
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._by_topic: dict[str, deque[Frame]] = {}
        #: The last frame of each of :data:`STATES`.
        self._states: dict[str, int] = {}

    @property
    def cursor(self) -> Cursor:
        """Of whoever has all frames."""
        return Cursor(self.epoch, self.last)

    @property
    def start(self) -> int:
        """Whoever has the frames up to this offset misses none."""
        return self.last - len(self._frames)

    def add(self, frame: Frame) -> None:
        """Add the next frame, and let go of the oldest that have no room any more."""
        assert frame.offset == self.last + 1
        self.last = frame.offset
        self._frames.append(frame)
        if frame.topic != SYSTEM:
            self._by_topic.setdefault(frame.topic, deque()).append(frame)
        elif frame.name in STATES:
            self._empty(self._states.get(frame.name, 0))
            self._states[frame.name] = frame.offset
        self.size_bytes += frame.size_bytes
        while self.size_bytes > self._max_bytes and len(self._frames) > 1:
            oldest = self._frames.popleft()
            self.size_bytes -= oldest.size_bytes
            if same := self._by_topic.get(oldest.topic):
                same.popleft()
                if not same:
                    del self._by_topic[oldest.topic]

    def _empty(self, offset: int) -> None:
        """Keep no more of a frame than its place."""
        index = offset - self.start - 1
        if index >= 0:
            self.size_bytes -= self._frames[index].size_bytes
            self._frames[index] = silent_frame(offset)
            self.size_bytes += self._frames[index].size_bytes

    def since(self, offset: int, max_bytes: int) -> list[Frame]:
        """The frames after an offset, as many as fit; at least one if there is any."""
        count = min(len(self._frames), max(0, self.last - offset))
        found: list[Frame] = []
        for frame in islice(self._frames, len(self._frames) - count, None):
            max_bytes -= frame.size_bytes
            if found and max_bytes < 0:
                break
            found.append(frame)
        return found

    def missed(self, topic: str, cursor: Cursor) -> list[Frame] | None:
        """The frames of a campaign after a cursor; None if they cannot all be here."""
        if cursor.epoch != self.epoch or not self.start <= cursor.offset <= self.last:
            return None
        found: list[Frame] = []
        for frame in reversed(self._by_topic.get(topic, ())):
            if frame.offset <= cursor.offset:
                break
            found.append(frame)
        found.reverse()
        return found


class Shown:
    """
    One event that subscribers see, read from its row no further than they do.

    Args:
        type: Of the event.
        occurred_us: When it happened.
        row: As it is encoded.
    """

    __slots__ = ("_row", "occurred_us", "type")

    def __init__(self, type: EventType, occurred_us: int, row: bytes) -> None:
        self.type = type
        self.occurred_us = occurred_us
        self._row = row

    def brief(self) -> dict[str, Any]:
        """Whose mail it is."""
        _, _, _, lead, mail = read_fields(self._row, _BRIEF)
        return {
            "eventType": self.type.value,
            "leadId": _text(lead),
            "emailId": _text(mail),
            "timestamp": iso_time(self.occurred_us),
        }

    def whole(self) -> dict[str, Any]:
        """With its link, device and place."""
        fields = read_fields(self._row, _WHOLE)
        return {
            "eventType": self.type.value,
            "leadId": _text(fields[_AT["lead_id"]]),
            "emailId": _text(fields[_AT["email_id"]]),
            "linkUrl": _text(fields[_AT["link_url"]]),
            "timestamp": iso_time(self.occurred_us),
            "deviceInfo": _json(fields[_AT["device"]]),
            "locationInfo": _json(fields[_AT["location"]]),
        }


_AT = {name: index for index, name in enumerate(COLUMNS)}
_BRIEF, _WHOLE = _AT["email_id"] + 1, _AT["location"] + 1


class Activity:
    """
    What one campaign has seen in one tick.

    Args:
        before: Its figures before it.
    """

    __slots__ = ("before", "events", "shown", "urgent", "urgent_events")

    def __init__(self, before: Figures | None) -> None:
        self.before = before
        self.events = 0
        #: Of them, those of high priority.
        self.urgent_events = 0
        #: Some of the events, where somebody wants to see them, and of the urgent ones.
        self.shown: list[Shown] = []
        self.urgent: list[Shown] = []


def campaign_frames(
    campaign_id: str,
    activity: Activity,
    figures: Figures,
    last: LastEvent | None,
    *,
    first_offset: int,
    to: To,
    batched: bool,
) -> list[Frame]:
    """
    The frames of a campaign's tick.

    Args:
        campaign_id: Which campaign.
        activity: What it has seen.
        figures: After it.
        last: The last event.
        first_offset: Of the first frame.
        to: Who watches: in detail, or not, or both.
        batched: Whether the processing mode is ``BATCH``.
    """
    counters = orjson.Fragment(orjson.dumps(figures.counters()))
    common = {
        "campaignId": campaign_id,
        "counters": counters,
        "lastEvent": last.described() if last else None,
    }
    parts: list[tuple[str, To, dict[str, Any]]] = []

    def add(shown: Sequence[Shown], events: int, *, batched: bool) -> None:
        version = first_offset + len(parts)
        if batched:
            parts.append((BATCH, to, _batch(common, shown, events, version)))
            return
        if To.PLAIN in to:
            parts.append((PROGRESS, To.PLAIN, common))
            version += 1
        if To.DETAIL in to:
            if events > MAX_SINGLE_EVENTS:
                parts.append((BATCH, To.DETAIL, _batch(common, shown, events, version)))
            else:
                parts.extend(
                    (DETAILED, To.DETAIL, common | {"event": event.whole()}) for event in shown
                )

    if batched:
        # What has priority is told as in every mode.
        if activity.urgent_events:
            add(activity.urgent, activity.urgent_events, batched=False)
        if rest := activity.events - activity.urgent_events:
            add(activity.shown, rest, batched=True)
    else:
        add([*activity.urgent, *activity.shown], activity.events, batched=False)
    return [
        Frame(
            first_offset + index,
            campaign_id,
            name,
            int(whom),
            orjson.dumps(data if name == BATCH else data | {"version": first_offset + index}),
            activity.before if index == 0 else figures,
            figures,
        )
        for index, (name, whom, data) in enumerate(parts)
    ]


def figures_frame(
    campaign_id: str,
    before: Figures | None,
    figures: Figures,
    last: LastEvent | None,
    offset: int,
) -> Frame:
    """The frame of a campaign whose figures the rows have put right."""
    data: dict[str, Any] = {
        "campaignId": campaign_id,
        "counters": figures.counters(),
        "lastEvent": last.described() if last else None,
        "version": offset,
    }
    if before is None or figures.is_below(before):
        data["correction"] = True
    return Frame(offset, campaign_id, PROGRESS, int(To.ALL), orjson.dumps(data), before, figures)


def system_frame(name: str, data: Any, offset: int) -> Frame:
    """A frame about the system."""
    return Frame(offset, SYSTEM, name, int(To.ALL), orjson.dumps(data))


def broadcasted(row: bytes) -> tuple[str | None, str, str]:
    """An event of :data:`BROADCASTED`: its campaign, its type, and the id that answers show."""
    fields = read_fields(row, _AT["client_event_id"] + 1)
    given = fields[_AT["client_event_id"]]
    event_type = fields[_AT["event_type"]]
    event_id = fields[_AT["event_id"]]
    assert event_type is not None
    assert event_id is not None
    shown = str(UUID(bytes=event_id)) if given is None else given.decode()
    return _text(fields[_AT["campaign_id"]]), event_type.decode(), shown


def silent_frame(offset: int) -> Frame:
    """
    A frame for nobody: cursors from before it are not those from after it.

    Where a campaign begins to be watched, there were no frames of it until then.
    """
    return Frame(offset, SYSTEM, "", 0, b"")


def _batch(
    common: Mapping[str, Any], shown: Sequence[Shown], events: int, version: int
) -> dict[str, Any]:
    shown = shown[:MAX_BATCH_EVENTS]
    return {
        "batchSize": len(shown),
        "events": [{**common, **event.brief(), "version": version} for event in shown],
        "dropped": events - len(shown),
    }


def _text(field: bytes | None) -> str | None:
    return None if field is None else field.decode()


def _json(field: bytes | None) -> Any:
    # Behind the byte that says which form of jsonb it is.
    return None if field is None else orjson.Fragment(field[1:])


# -- between broadcaster and replicas --------------------------------------------


class Poll(msgspec.Struct, array_like=True, frozen=True):
    """A replica asks for the frames after its cursor; without one, for all there are."""

    epoch: int = 0
    offset: int = 0


class Hear(msgspec.Struct, array_like=True, frozen=True):
    """
    An attached process asks for what was told after its cursor; without one, where that is now.
    The answer is a :class:`Polled`. With ``events`` it wants :data:`BROADCASTED` for a while.
    """

    epoch: int = 0
    offset: int = 0
    events: bool = False


class Polled(msgspec.Struct, array_like=True, frozen=True):
    """The answer: an epoch of its own, or a start behind the cursor, means that some are lost."""

    epoch: int
    #: Before the first of the frames.
    start: int
    frames: list[Frame]


class Watch(msgspec.Struct, array_like=True, frozen=True):
    """A replica has subscribers to these campaigns: ``{campaign: To}``. Said again and again."""

    campaigns: dict[str, int]


class Watched(msgspec.Struct, array_like=True, frozen=True):
    """How a campaign stands as one begins to watch it."""

    figures: Figures | None
    #: Since which offsets there are frames of it: for plain subscribers, and in detail.
    plain_since: int
    detail_since: int


class Watching(msgspec.Struct, array_like=True, frozen=True):
    """The answer to :class:`Watch`."""

    epoch: int
    #: The last frame that is in the figures.
    offset: int
    campaigns: dict[str, Watched]


class Interest:
    """
    Which campaigns are watched by anybody, and since which offset.

    Args:
        linger_ms: For how long after it was last said.
    """

    def __init__(self, linger_ms: int) -> None:
        self._linger_ms = linger_ms
        #: ``[until_ms, since]`` of each campaign.
        self._plain: dict[str, list[int]] = {}
        self._detail: dict[str, list[int]] = {}

    def lacks(self, campaigns: Mapping[str, int]) -> bool:
        """Whether any of them was not watched so until now."""
        return any(
            to & flag and campaign_id not in watched
            for campaign_id, to in campaigns.items()
            for flag, watched in ((To.PLAIN, self._plain), (To.DETAIL, self._detail))
        )

    def add(self, campaigns: Mapping[str, int], offset: int, now_ms: int) -> None:
        """Somebody watches them; where that is new, from this offset on."""
        for campaign_id, to in campaigns.items():
            for flag, watched in ((To.PLAIN, self._plain), (To.DETAIL, self._detail)):
                if to & flag:
                    its = watched.setdefault(campaign_id, [0, offset])
                    its[0] = now_ms + self._linger_ms

    def expire(self, now_ms: int) -> None:
        """Nobody has said for a while that they watch these."""
        for watched in (self._plain, self._detail):
            for campaign_id in [c for c, its in watched.items() if its[0] < now_ms]:
                del watched[campaign_id]

    def of(self, campaign_id: str) -> To | None:
        """Who watches a campaign; None for nobody."""
        plain, detail = campaign_id in self._plain, campaign_id in self._detail
        return (To.ALL if plain else To.DETAIL) if detail else (To.PLAIN if plain else None)

    def since(self, campaign_id: str) -> tuple[int, int]:
        """Since which offsets there are frames, plain and in detail; far ahead where none are."""
        never = [0, 2**62]
        plain = self._plain.get(campaign_id, never)[1]
        return plain, self._detail.get(campaign_id, never)[1]

    def among(self, campaign_ids: Iterable[str]) -> Sequence[str]:
        """Those of the campaigns that are watched."""
        return [c for c in campaign_ids if c in self._plain or c in self._detail]

    @property
    def campaigns(self) -> list[str]:
        """All that are watched."""
        return list(self._plain.keys() | self._detail.keys())
