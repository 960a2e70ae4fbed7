"""
A campaign's figures as the live side counts them: from the headers of log entries, in
advance of the rows, and put right by what the rows say.

What the rows say is true of certain positions in the log. So what stands behind those
positions is kept apart, as *pending*, until Postgres is known to have passed it::

    figures = base (what the rows say up to a position) + pending (the entries behind it)

When Postgres has moved on, what it passed goes from pending to base, and base is compared
with what the rows say now. They differ where an event became a dead letter, was discarded or
erased: the figures are corrected, and may go back.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from ray_tracking.events import ACCOUNT_MARK, LANES, TYPES_BY_CODE, EventType
from ray_tracking.pipeline.append import EntryId, Header
from ray_tracking.pipeline.flush import Where
from ray_tracking.pipeline.route import (
    BOUNCE_CODES,
    BOUNCE_SHIFT,
    MACHINE,
    TRACED,
    TYPE_MASK,
    partition_of,
)

#: What is counted from headers, in this order.
COUNTED = (
    "sent", "delivered", "opens", "clicks", "replies", "hard", "soft", "complaint",
    "suppression", "machine_opens", "machine_clicks",
)  # fmt: skip
#: What only the rows can tell, in this order.
UNIQUES = ("unique_opens", "unique_clicks", "unique_replies")
_SLOTS = {name: slot for slot, name in enumerate(COUNTED)}
_NOTHING = [0] * len(COUNTED)
#: Pieces of entries that are kept until Postgres has passed them.
MAX_PENDING = 100_000
#: Campaigns whose figures are kept in memory, watched or not.
MAX_CAMPAIGNS = 100_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Figures(msgspec.Struct, array_like=True, frozen=True):
    """The figures of a campaign at one moment; travels between processes."""

    counts: list[int]
    uniques: list[int]
    first_us: int | None
    last_us: int | None
    at_ms: int

    def counters(self) -> dict[str, Any]:
        """As frames show them: the names of the stats from ``sent`` to ``bounces``."""
        sent, delivered, opens, clicks, replies, hard, soft, complaint, suppression, *_ = (
            self.counts
        )
        unique_opens, unique_clicks, unique_replies = self.uniques
        return {
            "sent": sent,
            "delivered": delivered,
            "opens": opens,
            "uniqueOpens": unique_opens,
            "clicks": clicks,
            "uniqueClicks": unique_clicks,
            "replies": replies,
            "uniqueReplies": unique_replies,
            "bounces": {
                "hard": hard,
                "soft": soft,
                "complaint": complaint,
                "suppression": suppression,
            },
        }

    def columns(self) -> dict[str, Any]:
        """As :func:`ray_tracking.pipeline.formulas.campaign_stats` wants them."""
        return {
            **dict(zip(COUNTED, self.counts, strict=True)),
            **dict(zip(UNIQUES, self.uniques, strict=True)),
            "first_event_at": moment(self.first_us),
            "last_event_at": moment(self.last_us),
        }

    def is_same(self, other: Figures) -> bool:
        """Whether it says the same, though at another moment."""
        mine = self.counts, self.uniques, self.first_us, self.last_us
        return mine == (other.counts, other.uniques, other.first_us, other.last_us)

    def is_below(self, other: Figures) -> bool:
        """Whether any figure is smaller than there."""
        mine, its = chain(self.counts, self.uniques), chain(other.counts, other.uniques)
        return any(new < old for new, old in zip(mine, its, strict=True))


class LastEvent(NamedTuple):
    """The last event of a campaign in the order of the log."""

    type: EventType
    occurred_us: int

    def described(self) -> dict[str, str]:
        """As frames show it."""
        return {"eventType": self.type.value, "timestamp": iso_time(self.occurred_us)}


class Tally(NamedTuple):
    """What one entry adds to one campaign."""

    #: ``(slot of COUNTED, how many)``.
    counts: tuple[tuple[int, int], ...]
    first_us: int
    last_us: int
    last: LastEvent
    events: int


def moment(micros: int | None) -> datetime | None:
    """An aware datetime of Unix microseconds."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def micros(at: datetime | None) -> int | None:
    """Unix microseconds of an aware datetime."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def iso_time(occurred_us: int) -> str:
    """Unix microseconds as the API shows times."""
    text = (_EPOCH + timedelta(microseconds=occurred_us)).isoformat(
        timespec="microseconds" if occurred_us % 1000 else "milliseconds"
    )
    return f"{text[:-6]}Z"  # without its +00:00


def _slot(flags: int) -> int | None:
    kind = TYPES_BY_CODE[flags & TYPE_MASK]
    machine = "machine_" if flags & MACHINE else ""
    if kind is EventType.EMAIL_BOUNCE:
        code = flags >> BOUNCE_SHIFT & 0b11
        return _SLOTS[next(name for name, its in BOUNCE_CODES.items() if its == code)]
    names = {
        EventType.EMAIL_SENT: "sent",
        EventType.EMAIL_DELIVERED: "delivered",
        EventType.EMAIL_OPEN: f"{machine}opens",
        EventType.LINK_CLICK: f"{machine}clicks",
        EventType.EMAIL_REPLY: "replies",
    }
    return _SLOTS[names[kind]] if kind in names else None


_FLAG_BITS = TRACED.bit_length()
_SLOT_OF = [_slot(flags) for flags in range(1 << _FLAG_BITS)]
_TYPE_OF = [TYPES_BY_CODE[flags & TYPE_MASK] for flags in range(1 << _FLAG_BITS)]


def tallies(header: Header) -> dict[str, Tally]:
    """What an entry adds to each of its campaigns; events without a campaign are passed over."""
    flags, occurred = array("H", header.flags), array("q", header.occurred_us)
    if len(header.keys) == 1:
        key = header.keys[0]
        return {} if key.startswith(ACCOUNT_MARK) else {key: _tally(flags, occurred)}
    members: list[tuple[array[int], array[int]]] = [(array("H"), array("q")) for _ in header.keys]
    for at, one_flags, one_us in zip(array("H", header.key_index), flags, occurred, strict=True):
        its_flags, its_us = members[at]
        its_flags.append(one_flags)
        its_us.append(one_us)
    return {
        key: _tally(*its)
        for key, its in zip(header.keys, members, strict=True)
        if not key.startswith(ACCOUNT_MARK)
    }


def _tally(flags: array[int], occurred: array[int]) -> Tally:
    counts: dict[int, int] = {}
    # To make a Counter takes longer than all the rest, and most entries are short.
    numbers = Counter(flags) if len(flags) > 1 else {flags[0]: 1}
    for value, number in numbers.items():
        slot = _SLOT_OF[value]
        if slot is not None:
            counts[slot] = counts.get(slot, 0) + number
    last = LastEvent(_TYPE_OF[flags[-1]], occurred[-1])
    return Tally(tuple(counts.items()), min(occurred), max(occurred), last, len(flags))


class _Campaign:
    """What is known of one."""

    __slots__ = (
        "counts", "figures", "first_us", "is_known", "last", "last_us", "pending",
        "pending_events", "uniques",
    )  # fmt: skip

    def __init__(self, *, is_known: bool) -> None:
        #: Whether somebody has said what the rows hold.
        self.is_known = is_known
        #: Base and pending together; of use only where it is known.
        self.counts = _NOTHING.copy()
        self.pending = _NOTHING.copy()
        self.pending_events = 0
        #: Replaced, never changed.
        self.uniques = [0] * len(UNIQUES)
        #: As they were asked for last, if nothing has changed since.
        self.figures: Figures | None = None
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.last: LastEvent | None = None

    def widen(self, first_us: int | None, last_us: int | None) -> None:
        if first_us is not None:
            self.first_us = first_us if self.first_us is None else min(self.first_us, first_us)
        if last_us is not None:
            self.last_us = last_us if self.last_us is None else max(self.last_us, last_us)


class Change(NamedTuple):
    """What the rows have put right of a campaign."""

    before: Figures | None
    after: Figures


class Ledger:
    """
    The figures of all campaigns.

    Args:
        positions: Of each stream, where counting begins.
        partitions: How many the log has.
        base: What the rows say up to these positions, of every campaign there is; None if
            nobody could be asked.
        max_pending: Pieces of entries that are kept until Postgres has passed them.
        max_campaigns: How many are kept.
    """

    def __init__(
        self,
        positions: Mapping[Where, EntryId],
        partitions: int,
        base: Mapping[str, Mapping[str, Any]] | None,
        *,
        max_pending: int = MAX_PENDING,
        max_campaigns: int = MAX_CAMPAIGNS,
    ) -> None:
        #: Up to where each stream has been counted.
        self.read = dict(positions)
        #: Up to where it is in the base.
        self._floor = dict(positions)
        self._partitions = partitions
        self._max_pending = max_pending
        self._max_campaigns = max_campaigns
        self._journal: dict[Where, deque[tuple[EntryId, dict[str, Tally]]]] = {
            where: deque() for where in positions
        }
        self._pending = 0
        #: The one that was active longest ago first.
        self._campaigns: dict[str, _Campaign] = {}
        #: Whether a campaign that is not here has no rows.
        self._complete = base is not None
        for campaign_id, counts in (base or {}).items():
            self._take_base(self._campaign(campaign_id), counts)

    # -- from the log ------------------------------------------------------------

    def count(self, where: Where, entry_id: EntryId, header: Header) -> dict[str, Tally]:
        """Count an entry; what it adds to each campaign."""
        found = tallies(header) if header.count else {}
        for campaign_id, tally in found.items():
            campaign = self._campaign(campaign_id)
            campaign.figures = None
            for slot, number in tally.counts:
                campaign.counts[slot] += number
                campaign.pending[slot] += number
            campaign.pending_events += tally.events
            campaign.widen(tally.first_us, tally.last_us)
            campaign.last = tally.last
        self.read[where] = entry_id
        if found:
            self._journal[where].append((entry_id, found))
            self._pending += len(found)
            while self._pending > self._max_pending:
                self._credit_oldest()
        return found

    def skip(self, where: Where, to: EntryId) -> list[str]:
        """
        Go on behind entries that are missing, which Postgres has passed.

        Returns:
            The campaigns whose figures are unknown until the next :meth:`reconcile`.
        """
        self._settle(where, to)
        self.read[where] = self._floor[where] = max(to, self._floor[where])
        lost = [
            campaign_id
            for campaign_id in self._campaigns
            if partition_of(campaign_id, self._partitions) == where[0]
        ]
        for campaign_id in lost:
            self._campaigns[campaign_id].is_known = False
        self._complete = False
        return lost

    # -- from the rows -----------------------------------------------------------

    def has_read(self, positions: Mapping[Where, EntryId]) -> bool:
        """Whether all up to there was counted, so that it can be compared."""
        return all(self.read[where] >= at for where, at in positions.items() if where in self.read)

    def reconcile(
        self,
        positions: Mapping[Where, EntryId],
        totals: Mapping[str, Mapping[str, Any]],
        asked: Iterable[str],
        now_ms: int,
    ) -> dict[str, Change]:
        """
        Put right what the rows say otherwise.

        Args:
            positions: Up to where they are rows, of the same snapshot as the totals.
            totals: What they say.
            asked: Which campaigns they were asked about: one without rows is not in totals.
            now_ms: Unix milliseconds.

        Returns:
            The campaigns whose figures are other than they were.
        """
        for where, at in positions.items():
            if where in self.read:
                self._settle(where, at)
        changes: dict[str, Change] = {}
        for campaign_id in asked:
            if not self._is_comparable(campaign_id, positions):
                continue
            campaign = self._campaign(campaign_id)
            before = self._figures(campaign, now_ms)
            self._take_base(campaign, totals.get(campaign_id))
            after = self._figures(campaign, now_ms)
            assert after is not None
            if before is None or not after.is_same(before):
                changes[campaign_id] = Change(before, after)
        return changes

    # -- asking ------------------------------------------------------------------

    def figures(self, campaign_id: str, now_ms: int) -> Figures | None:
        """The figures now; None while nobody could say what the rows hold."""
        return self._figures(self._campaign(campaign_id), now_ms)

    def last_event(self, campaign_id: str) -> LastEvent | None:
        """The last event counted, of those since this ledger began."""
        campaign = self._campaigns.get(campaign_id)
        return campaign.last if campaign else None

    # -- below -------------------------------------------------------------------

    def _campaign(self, campaign_id: str) -> _Campaign:
        campaign = self._campaigns.pop(campaign_id, None)
        if campaign is None:
            campaign = _Campaign(is_known=self._complete)
        self._campaigns[campaign_id] = campaign
        if len(self._campaigns) > self._max_campaigns:
            self._forget_one()
        return campaign

    def _forget_one(self) -> None:
        for campaign_id, campaign in self._campaigns.items():
            if not campaign.pending_events:
                del self._campaigns[campaign_id]
                self._complete = False
                return

    def _figures(self, campaign: _Campaign, now_ms: int) -> Figures | None:
        if not campaign.is_known:
            return None
        if campaign.figures is None:
            campaign.figures = Figures(
                campaign.counts.copy(),
                campaign.uniques,
                campaign.first_us,
                campaign.last_us,
                now_ms,
            )
        return campaign.figures

    def _take_base(self, campaign: _Campaign, counts: Mapping[str, Any] | None) -> None:
        counts = counts or {}
        pending = campaign.pending
        campaign.counts = [counts.get(name, 0) + pending[slot] for name, slot in _SLOTS.items()]
        campaign.uniques = [counts.get(name, 0) for name in UNIQUES]
        campaign.is_known = True
        campaign.figures = None
        if not campaign.pending_events:
            campaign.first_us = campaign.last_us = None
        campaign.widen(micros(counts.get("first_event_at")), micros(counts.get("last_event_at")))

    def _is_comparable(self, campaign_id: str, positions: Mapping[Where, EntryId]) -> bool:
        """Not while the base holds entries on credit that are no rows yet."""
        partition = partition_of(campaign_id, self._partitions)
        wheres = [(partition, lane) for lane in range(len(LANES))]
        return all(self._floor[where] <= positions[where] for where in wheres)

    def _settle(self, where: Where, at: EntryId) -> None:
        journal = self._journal[where]
        while journal and journal[0][0] <= at:
            self._to_base(journal.popleft()[1])
        self._floor[where] = max(self._floor[where], min(at, self.read[where]))

    def _credit_oldest(self) -> None:
        """Take what waits longest into the base before it is rows: there is no room for more."""
        where = max(self._journal, key=lambda where: len(self._journal[where]))
        entry_id, found = self._journal[where].popleft()
        self._to_base(found)
        self._floor[where] = entry_id

    def _to_base(self, found: Mapping[str, Tally]) -> None:
        self._pending -= len(found)
        for campaign_id, tally in found.items():
            campaign = self._campaigns.get(campaign_id)
            if campaign is None:
                continue
            for slot, number in tally.counts:
                campaign.pending[slot] -= number
            campaign.pending_events -= tally.events
