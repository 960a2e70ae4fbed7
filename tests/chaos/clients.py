"""
The clients: some send one event after the other, some send batches, some are mails that
are opened and clicked. All of them are honest: who got no answer, or a refusal, sends the
same event again, with the same id, as long as the service can know it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

from tests.chaos.api import Api, Event
from tests.chaos.history import Sent

#: Inside the window in which the service recognises an event, with time for its answer.
GIVE_UP_AFTER_S = 75.0
IDEMPOTENCY_WINDOW_S = 120
_TIMESTAMP = "2026-11-01T09:00:00Z"
_CAMPAIGNS = 24
_BATCH_SIZES = (2, 10, 40)
#: Of the events of a sequential client.
_TWICE_AT_ONCE, _AGAIN_LATER = 0.02, 0.05


@dataclass(frozen=True)
class Rates:
    """Events per second of each kind."""

    singles: float = 120.0
    batches: float = 120.0
    hits: float = 40.0


class Clients:
    """
    All of them.

    Args:
        api: The service.
        rates: How much they send, when the service keeps up.
        seed: Of everything that they choose.
    """

    def __init__(self, api: Api, rates: Rates, seed: int) -> None:
        self.api = api
        self._rates = rates
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[object]] = set()
        self._sending = True
        self._prefix = f"{seed:x}"

    def start(self) -> None:
        """Begin to send."""
        # Few requests a second from each: a client waits for its answer, and for a fault's end.
        for number in range(max(1, round(self._rates.singles / 4))):
            self._spawn(self._one_by_one(f"{self._prefix}-s{number}", 4.0))
        for number in range(max(1, round(self._rates.batches / 17 / 2))):
            self._spawn(self._in_batches(f"{self._prefix}-b{number}", 2.0))
        self._spawn(self._mails(f"{self._prefix}-m"))

    async def stop(self) -> None:
        """Send nothing new; return when everything sent is acknowledged or given up."""
        self._sending = False
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        task.result()

    # -- one after the other -----------------------------------------------------

    async def _one_by_one(self, name: str, rate: float) -> None:
        async for turn in self._turns(rate):
            event = self._event(name, turn, 0)
            if self._random.random() < _TWICE_AT_ONCE:
                self._spawn(self._send(event))
            if not await self._send(event):
                continue
            if self._random.random() < _AGAIN_LATER:
                self._spawn(self._send_later(event))

    async def _in_batches(self, name: str, rate: float) -> None:
        async for turn in self._turns(rate):
            size = self._random.choice(_BATCH_SIZES)
            left = [self._event(name, turn, index) for index in range(size)]
            while left:
                left, wait_s = await self.api.batch(left)
                if left and not await self._may_go_on(left[0], wait_s):
                    break

    async def _send(self, event: Event) -> bool:
        """Whether it was acknowledged in the end."""
        while True:
            wait_s = await self.api.single(event)
            if wait_s is None:
                return True
            if not await self._may_go_on(event, wait_s):
                return False

    async def _send_later(self, event: Event) -> None:
        await asyncio.sleep(self._random.uniform(0, 10))
        if self._sending and self._is_known(event):
            await self.api.single(event)

    async def _may_go_on(self, event: Event, wait_s: float) -> bool:
        """After a pause: is the service still bound to recognise it?"""
        await asyncio.sleep(wait_s * self._random.uniform(1, 1.2))
        return self._is_known(event)

    def _is_known(self, event: Event) -> bool:
        since_loss = not any(event.sent.first_s <= loss.until_s for loss in self.api.history.losses)
        return since_loss and time.monotonic() - event.sent.first_s < GIVE_UP_AFTER_S

    # -- mails -------------------------------------------------------------------

    async def _mails(self, name: str) -> None:
        """Each mail is opened and clicked once, by somebody whom nobody else shares."""
        async for turn in self._turns(self._rates.hits / 2):
            self._spawn(self._mail(name, turn))

    async def _mail(self, name: str, turn: int) -> None:
        lead, url = f"{name}-{turn}", f"https://example.com/{name}?turn={turn}"
        who = {"campaignId": self._campaign(), "leadId": lead, "emailId": "mail"}
        links = await self.api.links({**who, "links": [url]})
        if links is None:
            return
        paths = (links["pixelUrl"], links["links"][0]["trackingUrl"])
        for index, (kind, address) in enumerate(
            zip(("EMAIL_OPEN", "LINK_CLICK"), paths, strict=True)
        ):
            sent = Sent(f"{kind}|{lead}", who["campaignId"], name, turn, index, in_turn=False)
            event = Event(sent, kind, who | ({"linkUrl": url} if index else {}))
            path = urlsplit(address).path
            answered = await self.api.hit(event, path)
            # A mail client that got no picture asks once more; some ask twice anyway.
            if not answered or self._random.random() < _AGAIN_LATER:
                await self.api.hit(event, path)

    # -- what they send ----------------------------------------------------------

    def _event(self, client: str, turn: int, index: int) -> Event:
        key, campaign = f"{client}-{turn}-{index}", self._campaign_of(client)
        who = {"campaignId": campaign, "leadId": key, "emailId": "mail"}
        data = {"eventId": key, **who, "timestamp": _TIMESTAMP}
        sent = Sent(key, campaign, client, turn, index)
        dice = self._random.random()
        if dice < 0.1:
            return Event(sent, "EMAIL_BOUNCE", {**data, "bounceType": "hard", "smtpCode": 550})
        if dice < 0.15:
            return Event(sent, "EMAIL_REPLY", {**data, "subject": "Re: chaos"}, "high")
        if dice < 0.5:
            return Event(sent, "LINK_CLICK", {**data, "linkUrl": "https://example.com/"})
        return Event(sent, "EMAIL_OPEN", data)

    def _campaign(self) -> str:
        return f"campaign-{self._random.randrange(_CAMPAIGNS)}"

    def _campaign_of(self, client: str) -> str:
        """Of each client always the same two: order is promised inside a campaign."""
        return f"campaign-{(crc32(client.encode()) + self._random.randrange(2)) % _CAMPAIGNS}"

    async def _turns(self, rate: float) -> AsyncIterator[int]:
        """The numbers of the turns, so many a second; a late one is not made up for."""
        await asyncio.sleep(self._random.uniform(0, 1 / rate))
        due_s, turn = time.monotonic(), 0
        while self._sending:
            yield turn
            turn += 1
            due_s = max(due_s + 1 / rate, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())
