"""A campaign: load, faults alone and in pairs, and the verdict."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chaos.api import Api
from tests.chaos.clients import Clients, Rates
from tests.chaos.faults import ALL, PILED_S, Fault, Scene
from tests.chaos.history import History
from tests.chaos.judge import Violation, judge
from tests.chaos.probe import drained, taken_after
from tests.chaos.target import Target
from tests.chaos.watchers import Watchers

_WARM_UP_S = 2.0
_ALONE = 0.6
_PAUSE_S = 1.5
#: When events are not taken in time, how much longer to look whether they ever are.
_RESCUE_AFTER_S = 60.0
_ENDS_WITHIN_S = 10.0
Say = Callable[[str], None]


@dataclass
class Report:
    """What happened, for people and for files."""

    seed: int
    flavour: str
    violations: list[Violation] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    #: Seconds until events were taken again, after each fault and pair of faults.
    back_after_s: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class Campaign:
    """
    Args:
        target: The service; started here, and stopped.
        seed: Of everything that is chosen.
        rates: Of the load.
        patience: How much longer than promised everything may take, on a machine that
            others use as well.
        say: Gets a line for each thing that happens.
    """

    def __init__(
        self,
        target: Target,
        seed: int,
        rates: Rates,
        say: Say = print,
        patience: float = 1.0,
    ) -> None:
        self.target = target
        self.history = History()
        self.api = Api(target.url, self.history)
        self.clients = Clients(self.api, rates, seed)
        self.watchers = Watchers(target.url, self.history) if target.has_live_updates else None
        self.scene = Scene(target, self.api, self.history, Random(seed), patience=patience)
        self._random = self.scene.random
        self._say = say
        self._patience = patience
        self._began_s = time.monotonic()
        flavour = "outside" if target.outside else "clock" if target.clock else "embedded"
        self.report = Report(seed, flavour)
        self._back_after_s: dict[str, list[float]] = defaultdict(list)

    # -- life --------------------------------------------------------------------

    async def open(self) -> None:
        """Start the service and the load."""
        try:
            took_s = await self.target.start()
        except BaseException:
            await self.api.close()
            raise
        self.scene.cold_start_s = took_s
        self.say(f"{self.report.flavour} service started in {took_s:.1f} s")
        await self.target.forbid_poison()
        self.clients.start()
        if self.watchers is not None:
            self.watchers.start()
        await asyncio.sleep(_WARM_UP_S)

    async def close(self, drained_within_s: float = 90.0) -> Report:
        """Stop the load, wait until all is drained, judge, and stop the service."""
        await self.clients.stop()
        self.say("the load has ended; waiting until all is drained")
        if not self.target.is_running:
            self.history.stuck.append("`ray-tracking run` had ended")
            self.target.kill_all()
            await self.target.start()
        amiss = await drained(self.api, self.target, drained_within_s * self._patience)
        if amiss:
            self.history.stuck.append(amiss)
        if self.watchers is not None:
            await self.watchers.check(self.target, self._patience)
        rows, letters = await self.target.rows(), await self.target.letters()
        report = self.report
        wrong = await self.target.differences()
        report.violations = judge(self.history, rows, letters, wrong)
        report.strikes = dict(self.scene.strikes)
        report.back_after_s = dict(self._back_after_s)
        report.figures = {
            "seconds": round(time.monotonic() - self._began_s),
            "sent": len(self.history.events),
            "acknowledged": self.history.acknowledged,
            "rows": len(rows),
            "live messages": self.watchers.messages if self.watchers else 0,
            "letters": len(letters),
            "answers": {str(status): n for status, n in sorted(self.api.statuses.items())},
            "kills": sum(n for what, n in self.scene.strikes.items() if what.startswith("kill")),
        }
        await self.api.close()
        code = await self.target.stop()
        report.figures["exit code"] = code
        return report

    def say(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began_s:7.1f}  {text}")

    # -- faults ------------------------------------------------------------------

    def choose(self, names: Sequence[str]) -> list[Fault]:
        """Those faults that can be had here; the others are noted with the reason."""
        chosen = []
        for name in names:
            fault = ALL[name](self.scene)
            if reason := fault.reason_to_skip():
                self.report.skipped[name] = reason
            else:
                chosen.append(fault)
        return chosen

    async def rounds(
        self, faults: Sequence[Fault], until_s: float, enough: Callable[[], bool]
    ) -> None:
        """Faults until then: each once alone, then at random, alone and in pairs."""
        first = list(faults)
        self._random.shuffle(first)
        while time.monotonic() < until_s and not enough():
            chosen = [first.pop()] if first else self._draw(faults)
            try:
                await self.round(chosen)
            except Exception as error:
                # Of the suite itself, as likely as not; the verdict on the rest is worth having.
                names = " + ".join(fault.name for fault in chosen)
                self._stuck(f"{names}: {type(error).__name__}: {error}")
            await asyncio.sleep(self._random.uniform(0, _PAUSE_S))

    def _draw(self, faults: Sequence[Fault]) -> list[Fault]:
        weights = [fault.weight for fault in faults]
        one, other = self._random.choices(faults, weights, k=2)
        alone = self._random.random() < _ALONE
        return [one] if alone or one is other or not (one.pairs and other.pairs) else [one, other]

    async def round(self, faults: Sequence[Fault]) -> None:
        """Strike, hold, heal, and look whether events are taken again in time."""
        name = " + ".join(sorted(fault.name for fault in faults))
        piled = len(faults) > 1 or not self.target.is_whole
        struck = []
        for fault in faults:
            if await fault.strike():
                struck.append(fault)
                await asyncio.sleep(self._random.uniform(0, 0.5) if len(faults) > 1 else 0)
        for fault in struck:
            await fault.hold()
        for fault in struck:
            await fault.heal()
        if not struck:
            self.say(f"{name}: nothing to strike")
            return
        within_s = max([fault.back_within_s for fault in struck] + [PILED_S] * piled)
        within_s *= self._patience
        took_s = await taken_after(self.api, within_s + _RESCUE_AFTER_S)
        if took_s is None:
            self._stuck(f"{name}: no events within {within_s + _RESCUE_AFTER_S:.0f} s")
            await self._rescue()
            return
        self._back_after_s[name].append(round(took_s, 2))
        if took_s > within_s:
            self._stuck(f"{name}: no events within {within_s:.1f} s, but {took_s:.1f} s")
        else:
            self.say(f"{name}: back after {took_s:.2f} s")

    def _stuck(self, text: str) -> None:
        self.say(f"STUCK {text}")
        self.history.stuck.append(f"{time.monotonic() - self._began_s:.0f} s: {text}")

    async def _rescue(self) -> None:
        """Start it again, so that the rest of the campaign is worth something."""
        self.say("starting the service again")
        self.target.kill_all()
        # A thread that waits for ever would hold up the end of the whole suite.
        await asyncio.to_thread(self.target.service.process.wait, _ENDS_WITHIN_S)
        await self.target.start()
