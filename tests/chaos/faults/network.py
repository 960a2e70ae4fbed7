"""Networks that fail between the service and its servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar

from tests.chaos.faults.base import SOON_S, Fault
from tests.chaos.link import Link

#: What the service waits for an answer before it gives a connection up, and a little more.
_NOTICED_S = 6.0


class NetworkFault(Fault):
    """
    One way to fail, of one of the two cables.

    A long hold reaches every time-out of the service; a short one reaches none.
    """

    server: ClassVar[str]
    outside = True
    weight = 0.4
    hold_s: ClassVar[tuple[float, float]] = (0.5, 8.0)

    @property
    def link(self) -> Link:
        assert self.target.outside is not None
        outside = self.target.outside
        return outside.redis_link if self.server == "redis" else outside.postgres_link

    async def strike(self) -> bool:
        self.scene.strikes[f"network: {self.name}"] += 1
        self.bend()
        return True

    def bend(self) -> None:
        """Do it."""
        raise NotImplementedError

    async def hold(self) -> None:
        await asyncio.sleep(self.scene.random.uniform(*self.hold_s))

    async def heal(self) -> None:
        await self.link.heal()


class _Cut(NetworkFault):
    """Connections end, and new ones are refused."""

    def bend(self) -> None:
        self.link.refuse()
        self.link.reset()


class _Reset(NetworkFault):
    """Connections end, and new ones are welcome."""

    hold_s = (0.0, 0.0)

    def bend(self) -> None:
        self.link.reset()


class _Tear(NetworkFault):
    """Connections end in the middle of a question or an answer."""

    hold_s = (0.2, 0.5)

    def bend(self) -> None:
        self.link.tear()


class _Slow(NetworkFault):
    """Every piece takes its time."""

    def bend(self) -> None:
        self.link.latency_s = self.scene.random.choice((0.02, 0.2, 1.0))
        self.link.bytes_per_s = self.scene.random.choice((100e3, 1e6, 1e9))


class _Hold(NetworkFault):
    """Nothing gets through, and then everything does, late."""

    def bend(self) -> None:
        self.link.hold()


class _Mute(NetworkFault):
    """Questions arrive, answers do not: everything is done, and nobody knows."""

    def bend(self) -> None:
        self.link.answers.clear()

    async def heal(self) -> None:
        self.link.reset()  # the answers are lost
        await self.link.heal()


class _Vanish(NetworkFault):
    """Half-open: what was connected stays silent for ever, and only a time-out tells."""

    hold_s = (0.5, 4.0)

    def bend(self) -> None:
        self.link.forget()

    @property
    def back_within_s(self) -> float:
        return SOON_S + _NOTICED_S


def _all() -> Iterator[type[Fault]]:
    for server in ("redis", "postgres"):
        for kind in (_Cut, _Reset, _Tear, _Slow, _Hold, _Mute, _Vanish):
            name = f"{server}-{kind.__name__.strip('_').lower()}"
            yield type(name, (kind,), {"name": name, "server": server, "__doc__": kind.__doc__})


FAULTS = tuple(_all())
