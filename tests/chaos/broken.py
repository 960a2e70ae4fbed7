"""
Is the judge awake? Products with a bug built in, and what the judge must say of each.

A copy of ``ray_tracking`` gets one change of its text, runs under a short load, and is
judged like any other.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.campaign import Campaign, Say
from tests.chaos.clients import Rates
from tests.chaos.clock import COMPILER
from tests.chaos.faults import ALL
from tests.chaos.stage import fresh_target

_LOAD_S = 6.0
_PAUSE_S = 1.0
_DRAINED_WITHIN_S = 15.0


@dataclass(frozen=True)
class Break:
    """
    One bug.

    Args:
        name: What is wrong.
        file: Where, below ``ray_tracking``.
        old: A text that stands there exactly once.
        new: What stands there instead.
        promise: Which it breaks.
        faults: What it takes to show; nothing but load for most.
        flavour: Of the service.
    """

    name: str
    file: str
    old: str
    new: str
    promise: str
    faults: tuple[str, ...] = ()
    flavour: str = "embedded"

    def apply(self, package: Path) -> None:
        """
        Build it in.

        Raises:
            ValueError: The text is not there, or more than once: the product has changed.
        """
        path = package / self.file
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} does not hold once: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


BREAKS = (
    Break(
        "an event is dropped before the COPY",
        "pipeline/rows.py",
        "    for index, row in rows:\n        parts.append(prefix)\n",
        "    for index, row in rows:\n"
        "        if index == 1 and seq % 8 == 7:\n"
        "            continue\n"
        "        parts.append(prefix)\n",
        "conservation",
    ),
    Break(
        "an event is written twice, at two places",
        "pipeline/rows.py",
        "        parts.append(row)\n    return b",
        "        parts.append(row)\n"
        "        if index == 0 and seq % 8 == 7:\n"
        "            parts += [prefix, _index_field(4, index + 100_000), row]\n"
        "    return b",
        "uniqueness",
    ),
    Break(
        "the events of an entry stand in the wrong order",
        "pipeline/admit.py",
        "encode_batch(\n                append.submissions,",
        "encode_batch(\n                append.submissions[::-1],",
        "order",
    ),
    Break(
        "an event is acknowledged before the log has it",
        "actors/shard.py",
        "\n        results = await self._log.append(appends)\n",
        "\n        for append in appends:\n"
        "            fields = append.fields\n"
        "            partition = self._partitions[append.partition]\n"
        "            self._settle(partition, append, Appended.OK, now_ms)\n"
        "            append.fields = fields\n"
        "        self._answer_settled()\n"
        "        await asyncio.sleep(0.3)\n"
        "        await self._log.append(appends)\n"
        "        return True\n",
        "conservation",
        faults=("shard",) * 4,
    ),
    Break(
        "a duplicate is taken for a new event",
        "pipeline/window.py",
        "received_ms(old_id)) >= window_ms:",
        "received_ms(old_id)) >= 1:",
        "uniqueness",
    ),
    Break(
        "events are judged by the wall clock",
        "clock.py",
        "    return lambda: (time.monotonic_ns() + offset_ns) // 1_000_000\n",
        "    return lambda: time.time_ns() // 1_000_000\n",
        "uniqueness",
        faults=("clock-ahead", "clock-right", "clock-back") * 3,
        flavour="clock",
    ),
)
if COMPILER is None:
    BREAKS = BREAKS[:-1]


async def is_seen(
    bug: Break, seed: int, say: Say = print, source: Path | None = None, patience: float = 1.0
) -> bool:
    """
    Whether the judge finds the promise broken that the bug breaks.

    Args:
        bug: Built into a copy.
        seed: Of the load.
        say: Gets a line for each thing that happens.
        source: A directory with another ``ray_tracking`` to copy instead of ours.
        patience: As for a campaign.
    """
    product = Path(tempfile.mkdtemp(prefix="chaos-broken-"))
    try:
        ours = (source or Path(__file__).parents[2]) / "ray_tracking"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ours, product / "ray_tracking", ignore=ignore)
        bug.apply(product / "ray_tracking")
        async with fresh_target(bug.flavour, product) as target:
            campaign = Campaign(target, seed, Rates(), say, patience)
            await campaign.open()
            for name in bug.faults:
                await campaign.round([ALL[name](campaign.scene)])
                await asyncio.sleep(_PAUSE_S)
            if not bug.faults:
                await asyncio.sleep(_LOAD_S)
            report = await campaign.close(drained_within_s=_DRAINED_WITHIN_S)
    finally:
        shutil.rmtree(product)
    found = Counter(violation.promise for violation in report.violations)
    say(f"{bug.name}: {dict(found) or 'nothing found'}")
    return bug.promise in found
