"""
Death at a chosen place in the code: :mod:`ray_tracking.failpoints`.

Each point has a situation in which somebody comes by it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
import time
from collections.abc import Iterator
from typing import ClassVar

from ray_tracking.failpoints import POINTS
from tests.chaos.api import Event
from tests.chaos.faults.base import Fault
from tests.chaos.history import Sent

_REACHED_WITHIN_S = 10.0
_SPOOLED_FOR_S = 3.0
_LETTER_WITHIN_S = 60.0
#: Postgres refuses it: see :func:`~tests.chaos.target.Target.forbid_poison`.
POISON_LEAD = "poison"
_number = itertools.count()


class Point(Fault):
    """The first process that comes by dies."""

    point: ClassVar[str]
    weight = 0.4

    def reason_to_skip(self) -> str | None:
        if reason := super().reason_to_skip():
            return reason
        if not self.target.settings.get("TRACKING_FAILPOINTS_DIR"):
            return "this product has no fail-points"
        call = re.compile(rf"""reach\(\s*["']{re.escape(self.point)}["']""")
        sources = (self.target.product / "ray_tracking").rglob("*.py")
        return None if any(call.search(s.read_text()) for s in sources) else "nobody comes by yet"

    async def strike(self) -> bool:
        (self.target.failpoints / self.point).touch()
        await self.lead_there()
        return True

    async def lead_there(self) -> None:
        """Bring somebody to the point; the load does it for most."""

    async def heal(self) -> None:
        """Wait until it has happened."""
        file = self.target.failpoints / self.point
        deadline_s = time.monotonic() + _REACHED_WITHIN_S
        while file.exists() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.02)
        reached = not file.exists()
        file.unlink(missing_ok=True)
        self.scene.strikes[f"kill at {self.point}" if reached else f"missed {self.point}"] += 1


class _AfterShard(Point):
    """While a successor takes over."""

    async def lead_there(self) -> None:
        for process in self.target.processes("shard"):
            if process.signal(signal.SIGKILL):
                self.scene.strikes["kill shard"] += 1


class _AfterWriter(Point):
    """The same for writers."""

    async def lead_there(self) -> None:
        for process in self.target.processes("writer"):
            if process.signal(signal.SIGKILL):
                self.scene.strikes["kill writer"] += 1


class _Spooling(Point):
    """While the log is away, or just after it came back."""

    outside = True

    async def lead_there(self) -> None:
        assert self.target.outside is not None
        self.target.outside.redis_link.refuse()
        self.target.outside.redis_link.reset()

    async def hold(self) -> None:
        await asyncio.sleep(_SPOOLED_FOR_S)

    async def heal(self) -> None:
        assert self.target.outside is not None
        await self.target.outside.redis_link.heal()
        await super().heal()


class _Poison(Point):
    """While an event that Postgres refuses becomes a dead letter."""

    async def lead_there(self) -> None:
        await send_one(self, f"poison-{next(_number)}", POISON_LEAD)


class KillerEvent(Fault):
    """An event that kills every writer that has it in its hands, until it is a dead letter."""

    name = "killer-event"
    pairs = False
    weight = 0.1

    def reason_to_skip(self) -> str | None:
        if reason := super().reason_to_skip():
            return reason
        return None if self.target.has_dead_letters else "this product has no dead letters"

    async def strike(self) -> bool:
        self._key = f"killer-{next(_number)}"
        self._file = self.target.failpoints / "writer.copied"
        self._file.write_text(self._key)
        self.scene.strikes["event that kills its writer"] += 1
        await send_one(self, self._key, self._key)
        return True

    async def heal(self) -> None:
        within_s = _LETTER_WITHIN_S * self.scene.patience
        deadline_s = time.monotonic() + within_s
        try:
            while time.monotonic() < deadline_s:
                if any(letter.key == self._key for letter in await self.target.letters()):
                    return
                await asyncio.sleep(0.5)
            self.scene.history.stuck.append(
                f"{self._key} is no dead letter within {within_s:.0f} s"
            )
        finally:
            self._file.unlink(missing_ok=True)


class PoisonEvent(Fault):
    """An event that Postgres refuses, in the midst of others that it does not."""

    name = "poison-event"
    weight = 0.5

    def reason_to_skip(self) -> str | None:
        if reason := super().reason_to_skip():
            return reason
        return None if self.target.has_dead_letters else "this product has no dead letters"

    async def strike(self) -> bool:
        self.scene.strikes["event that Postgres refuses"] += 1
        await send_one(self, f"poison-{next(_number)}", POISON_LEAD)
        return True


async def send_one(fault: Fault, key: str, lead: str) -> None:
    """One event, once; it may be refused."""
    campaign = f"campaign-{fault.scene.random.randrange(24)}"
    data = {
        "eventId": key, "campaignId": campaign, "leadId": lead, "emailId": "mail",
        "timestamp": "2026-11-01T09:00:00Z",
    }  # fmt: skip
    sent = Sent(key, campaign, "poisoner", 0, in_turn=False)
    await fault.scene.api.single(Event(sent, "EMAIL_OPEN", data))


def _all() -> Iterator[type[Fault]]:
    for point in POINTS:
        kind: type[Point] = Point
        if point.startswith("takeover."):
            kind = _AfterShard
        elif point == "writer.taken_over":
            kind = _AfterWriter
        elif point == "writer.letter":
            kind = _Poison
        elif point.startswith(("spool.", "drain.")):
            kind = _Spooling
        name = f"at-{point}"
        yield type(name, (kind,), {"name": name, "point": point, "__doc__": kind.__doc__})


FAULTS = (*_all(), KillerEvent, PoisonEvent)
