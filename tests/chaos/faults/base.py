"""What every fault is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from tests.chaos.api import Api
from tests.chaos.history import History
from tests.chaos.target import Target

#: After one fault that strikes a whole service: when events must be taken again.
SOON_S = 3.0
#: After several at once, or one that strikes while another is being mended.
PILED_S = 15.0


@dataclass
class Scene:
    """What faults work with, and where they write what they did."""

    target: Target
    api: Api
    history: History
    random: Random
    #: Of a service that is started on data that is there.
    cold_start_s: float = 30.0
    #: How much longer than promised everything may take.
    patience: float = 1.0
    #: How often each kind of thing was done, ``kill shard`` for one.
    strikes: Counter[str] = field(default_factory=Counter)


class Fault(ABC):
    """
    Something that goes wrong.

    Args:
        scene: Where.
    """

    name: ClassVar[str]
    #: Works only with servers outside, or only with embedded ones.
    outside: ClassVar[bool | None] = None
    #: Everything is away for a moment: what follows is a cold start.
    cold: ClassVar[bool] = False
    #: May strike together with another one.
    pairs: ClassVar[bool] = True
    #: How often it is drawn, beside others.
    weight: ClassVar[float] = 1.0

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.target = scene.target

    def reason_to_skip(self) -> str | None:
        """Why it cannot be had here, or None."""
        if self.outside is not None and self.outside is not (self.target.outside is not None):
            return "needs servers outside" if self.outside else "needs embedded servers"
        if self.cold and self.target.clock is not None:
            # It would start with another time of day, and windows that are as much shorter.
            return "whoever starts all over reads the clock again"
        return None

    @abstractmethod
    async def strike(self) -> bool:
        """Let it happen; whether it did."""

    async def hold(self) -> None:  # noqa: B027 - most need none
        """Return when it has lasted long enough. By itself it takes no time."""

    async def heal(self) -> None:  # noqa: B027 - most need none
        """Make good what is not the service's to make good."""

    @property
    def back_within_s(self) -> float:
        """After :meth:`heal`: when events must be taken again."""
        return self.scene.cold_start_s * 1.5 + SOON_S if self.cold else SOON_S
