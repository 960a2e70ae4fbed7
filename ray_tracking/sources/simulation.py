"""
What happens in a simulated campaign: an endless plan of events, decided beforehand.

The same :class:`Shape` is the same plan, to the byte: nothing here reads a clock or
does I/O, and :mod:`ray_tracking.cli.simulate` plays it. Mails are sent, delivered or
bounced, opened, clicked and answered about as often as real ones, in that order for
each mail; campaigns pause and go on; accounts report their health.

Every event for the API has an ``eventId`` of its own, so that a retry is recognised.
A hit has none: its token says who it is. That is why each mail's pixel is fetched
through its link at most once and each of its links clicked at most once; later opens
are reported over the API. Otherwise an honest second open within the deduplication
window would be a duplicate by definition, and the books would not balance.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any, Literal, NamedTuple

from ray_tracking.events import EventType
from ray_tracking.pipeline.rows import iso_utc
from ray_tracking.sources import simulation_people as people

Via = Literal["events", "batch", "pixel", "click"]

#: Of all mails: refused on the way, and reported as spam after they arrived.
BOUNCED = 0.027
COMPLAINED = 0.003
#: Of the delivered ones.
OPENED = 0.40
REPLIED = 0.03
#: Of the opened ones: 8 of 100 delivered.
CLICKED = 0.20
OPENED_AGAIN = 0.30
AUTO_REPLY = 0.25
#: For each mail that is sent.
PAUSED = 1 / 400
HEALTH_REPORTED = 1 / 100
#: A step of a mail's way comes so many events after the one before, on average.
_STEP_EVENTS = 60
_REPEAT_WITHIN_EVENTS = 20
#: How long ago a mail was sent that is reported now, on average and at most.
_AGE_S, _OLDEST_S = 600, 7200


@dataclass(frozen=True)
class Shape:
    """
    What kind of plan.

    Args:
        seed: Another seed, another plan. It is part of every id.
        start_s: Unix time at which the first event is played.
        rate_per_s: Events a second from then on.
        campaigns: How many there are; each gets an equal share.
        batch_share: Of the events for the API, how many go in batches.
        repeat_share: Of the events for the API, how many are sent a second time.
        tracked_share: Of the mails, how many carry a pixel and links of ours.
    """

    seed: int
    start_s: float
    rate_per_s: float
    campaigns: int
    batch_share: float = 0.3
    repeat_share: float = 0.01
    tracked_share: float = 0.5


class Planned(NamedTuple):
    """
    One event, and the way it comes in.

    ``data`` is its ``eventData``. For a hit, it is what the event will say; ``links``
    are those of its mail, for which tracking links must be made first.
    """

    via: Via
    event_type: EventType
    data: dict[str, Any]
    links: tuple[str, ...] = ()
    repeat: bool = False


class _Campaign(NamedTuple):
    id: str
    subject: str
    accounts: tuple[str, ...]
    links: tuple[str, ...]


class _Due(NamedTuple):
    """What comes at a place in the plan; ``age_s`` is how long ago it happened by then."""

    place: int
    order: int
    age_s: float
    planned: Planned


def plan(shape: Shape) -> Iterator[Planned]:
    """Every event in the order in which it is played, without an end."""
    return _Plan(shape).events()


class _Plan:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.rng = Random(shape.seed)
        self._name = f"{shape.seed & 0xFFFFFFFF:08x}"
        self._due: list[_Due] = []
        self._order = count()
        self._ids = count(1)
        self._campaigns = [self._campaign(number) for number in range(shape.campaigns)]

    def events(self) -> Iterator[Planned]:
        for place in count():
            if not self._due or self._due[0].place > place:
                self._send_mail(place)
            due = heapq.heappop(self._due)
            planned = due.planned
            if planned.repeat:
                yield planned
                continue
            happened_s = self.shape.start_s + place / self.shape.rate_per_s - due.age_s
            planned.data["timestamp"] = iso_utc(datetime.fromtimestamp(happened_s, UTC))
            yield planned
            api = planned.via in ("events", "batch")
            if api and self.rng.random() < self.shape.repeat_share:
                later = place + self.rng.randint(1, _REPEAT_WITHIN_EVENTS)
                self.put(later, 0, planned._replace(repeat=True))

    def _campaign(self, number: int) -> _Campaign:
        theme = people.THEMES[number % len(people.THEMES)]
        campaign_id = f"{theme}-{self._name}-{number:03}"
        campaign = _Campaign(
            campaign_id,
            self.rng.choice(people.SUBJECTS),
            tuple(f"outreach-{number:03}-{letter}@example.com" for letter in "abc"),
            tuple(link.replace("{}", theme) for link in people.LINKS),
        )
        self._status(number, campaign_id, "running", "draft", "started by its owner")
        return campaign

    def _send_mail(self, place: int) -> None:
        """Decide all that will ever happen to one mail."""
        rng = self.rng
        campaign = rng.choice(self._campaigns)
        mail = _Mail(self, campaign, place)
        mail.happens(EventType.EMAIL_SENT)
        fate = rng.random()
        if fate < BOUNCED:
            kind = rng.choices(("hard", "soft", "suppression"), (5, 4, 1))[0]
            mail.happens(EventType.EMAIL_BOUNCE, **_bounce(rng, kind))
        else:
            mail.happens(EventType.EMAIL_DELIVERED)
            if rng.random() < OPENED:
                mail.is_read()
            if rng.random() < REPLIED:
                mail.is_answered()
            if fate > 1 - COMPLAINED:
                mail.happens(EventType.EMAIL_BOUNCE, **_bounce(rng, "complaint"))
        if rng.random() < PAUSED:
            reason = rng.choice(people.PAUSE_REASONS)
            self._status(place + 1, campaign.id, "paused", "running", reason)
            self._status(place + 2 * _STEP_EVENTS, campaign.id, "running", "paused", "resumed")
        if rng.random() < HEALTH_REPORTED:
            self._health(place + 1, campaign)

    def _status(self, place: int, campaign_id: str, new: str, old: str, reason: str) -> None:
        data = {"campaignId": campaign_id, "newStatus": new, "oldStatus": old, "reason": reason}
        self.report(place, 0, EventType.CAMPAIGN_STATUS_CHANGE, data)

    def _health(self, place: int, campaign: _Campaign) -> None:
        rng = self.rng
        (row,) = rng.choices(people.HEALTH, [row[0] for row in people.HEALTH])
        _, status, lowest, highest, reason = row
        data: dict[str, Any] = {
            "accountId": rng.choice(campaign.accounts),
            "healthScore": round(rng.uniform(lowest, highest), 1),
            "status": status,
        }
        if reason:
            data["reason"] = reason
        if rng.random() < 0.5:
            data["campaignId"] = campaign.id
        self.report(place, 0, EventType.ACCOUNT_HEALTH_UPDATE, data)

    def report(self, place: int, age_s: float, event_type: EventType, data: dict[str, Any]) -> None:
        """Put an event for the API into the plan."""
        via: Via = "batch" if self.rng.random() < self.shape.batch_share else "events"
        data["eventId"] = f"sim-{self._name}-{next(self._ids):07}"
        self.put(place, age_s, Planned(via, event_type, data))

    def put(self, place: int, age_s: float, planned: Planned) -> None:
        """Put anything into the plan."""
        heapq.heappush(self._due, _Due(place, next(self._order), age_s, planned))


class _Mail:
    """One mail on its way: each step comes later in the plan than the one before."""

    def __init__(self, its_plan: _Plan, campaign: _Campaign, place: int) -> None:
        rng = its_plan.rng
        self._plan = its_plan
        self._rng = rng
        self._campaign = campaign
        self._place = place
        self._age_s = min(rng.expovariate(1 / _AGE_S), _OLDEST_S)
        number = rng.randrange(10**9)
        self._ids = {
            "campaignId": campaign.id,
            "leadId": f"lead-{number:09}",
            "emailId": f"mail-{number:09}-{rng.randint(1, 4)}",
        }
        self._account = rng.choice(campaign.accounts)
        self._tracked = rng.random() < its_plan.shape.tracked_share

    def happens(self, event_type: EventType, **more: Any) -> None:
        """The next step, reported over the API."""
        data = {**self._ids, "accountId": self._account, **more}
        if event_type is EventType.EMAIL_SENT and self._rng.random() < 0.2:
            data["customData"] = {"variant": self._rng.choice("AB"), "step": 1}
        self._plan.report(self._place, self._age_s, event_type, data)
        self._go_on()

    def is_read(self) -> None:
        """Opened, perhaps again and again, and perhaps clicked."""
        rng, reader = self._rng, people.reader(self._rng)
        by_mail = {"userAgent": reader.mail_agent, "ipAddress": reader.mail_address}
        if self._tracked:
            self._hit("pixel", EventType.EMAIL_OPEN, by_mail)
        else:
            self.happens(EventType.EMAIL_OPEN, **by_mail)
        while rng.random() < OPENED_AGAIN:
            self.happens(EventType.EMAIL_OPEN, **by_mail)
        if rng.random() >= CLICKED:
            return
        click = {
            "userAgent": reader.browser,
            "ipAddress": reader.address,
            "linkUrl": rng.choice(self._campaign.links),
        }
        if self._tracked:
            self._hit("click", EventType.LINK_CLICK, click)
        else:
            self.happens(EventType.LINK_CLICK, **click)

    def is_answered(self) -> None:
        """By the reader, or by a machine in their absence."""
        subject = f"Re: {self._campaign.subject}"
        automatic = self._rng.random() < AUTO_REPLY
        if automatic:
            subject = self._rng.choice(people.AUTO_REPLIES).format(self._campaign.subject)
        self.happens(
            EventType.EMAIL_REPLY,
            messageId=f"<{self._rng.getrandbits(64):016x}@mail.example.org>",
            inReplyTo=f"<{self._ids['emailId']}@example.com>",
            subject=subject,
            autoReply=automatic,
        )

    def _hit(self, via: Via, event_type: EventType, more: dict[str, Any]) -> None:
        hit = Planned(via, event_type, self._ids | more, self._campaign.links)
        # It happens as it is played, not some time before.
        self._age_s = 0
        self._plan.put(self._place, 0, hit)
        self._go_on()

    def _go_on(self) -> None:
        self._place += 1 + int(self._rng.expovariate(1 / _STEP_EVENTS))
        # Whatever comes next happened later, so it is younger when it is reported.
        self._age_s *= self._rng.uniform(0.3, 1)


def _bounce(rng: Random, kind: str) -> dict[str, Any]:
    code, reason = rng.choice(people.BOUNCES[kind])
    bounce = {"bounceType": kind, "bounceReason": reason}
    return bounce | {"smtpCode": code} if code else bounce
