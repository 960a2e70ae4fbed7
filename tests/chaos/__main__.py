"""``python -m tests.chaos``: the crash suite, as long as ``CHAOS_SECONDS`` says."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.chaos import broken, report
from tests.chaos.campaign import Campaign, Report
from tests.chaos.clients import Rates
from tests.chaos.clock import COMPILER
from tests.chaos.faults import ALL
from tests.chaos.stage import fresh_target

FLAVOURS = ("embedded", "outside", "clock")
RESULTS = Path(__file__).parent / "results"
_say = partial(print, flush=True)
#: Not empty when somebody has said so.
_enough: list[bool] = []


def main(env: Mapping[str, str]) -> int:
    """
    Run what the environment asks for, and report; the exit code.

    ``CHAOS_SECONDS`` of faults, in all flavours together; ``CHAOS_SEED``; ``CHAOS_FAULTS``
    and ``CHAOS_FLAVOURS``, names (flavour ``none``: only the products with a bug);
    ``CHAOS_PATIENCE``, how much longer than promised everything may take on a machine that
    others use; ``CHAOS_PRODUCT``, a directory with another ``ray_tracking``;
    ``CHAOS_BROKEN=0`` leaves out the products with a bug. Ctrl-C ends it early.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    seed = int(env.get("CHAOS_SEED") or secrets.randbelow(1 << 32))
    seconds = float(env.get("CHAOS_SECONDS") or 600)
    flavours = _list(env.get("CHAOS_FLAVOURS")) or list(FLAVOURS)
    flavours = [name for name in flavours if name in FLAVOURS]
    if "clock" in flavours and COMPILER is None:
        _say("nobody sets the clock: there is no C compiler")
        flavours.remove("clock")
    _say(f"CHAOS_SEED={seed} CHAOS_SECONDS={seconds:.0f}")
    names = _list(env.get("CHAOS_FAULTS")) or list(ALL)
    if unknown := set(names) - set(ALL):
        _say(f"no such faults: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
        return 2
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = RESULTS / f"{stamp}-{seed}.json"
    reports: list[Report] = []
    for flavour in flavours:
        if not _enough:
            share_s = seconds / len(flavours)
            reports.append(asyncio.run(campaign(flavour, seed, share_s, names, env)))
            report.save(reports, file)  # whatever becomes of the others
    unseen = []
    if env.get("CHAOS_BROKEN") != "0":
        for bug in broken.BREAKS if not _enough else ():
            source, patience = _product(env), _patience(env)
            if not asyncio.run(broken.is_seen(bug, seed, _say, source, patience)):
                unseen.append(bug.name)
    _say(report.text(reports))
    for name in unseen:
        _say(f"THE JUDGE IS BLIND: {name}")
    _say(str(file))
    return 1 if unseen or any(each.violations for each in reports) else 0


async def campaign(
    flavour: str, seed: int, seconds: float, names: list[str], env: Mapping[str, str]
) -> Report:
    """One campaign against a fresh service; its logs are kept when something is wrong."""
    async with fresh_target(flavour, _product(env)) as target:
        _say(f"{flavour}: in {target.root}")
        running = Campaign(target, seed, Rates(), _say, _patience(env))
        await running.open()
        until_s = time.monotonic() + seconds
        await running.rounds(running.choose(names), until_s, lambda: bool(_enough))
        found = await running.close()
        if found.violations:
            found.figures["kept"] = str(target.root)
            report.save([found], target.root / "report.json")
        return found


def _stop(*_: object) -> None:
    """At first, strike no more and judge what there is; then, at once."""
    if _enough:
        raise KeyboardInterrupt
    _say("no more faults; once more ends it without a verdict")
    _enough.append(True)


def _product(env: Mapping[str, str]) -> Path | None:
    return Path(env["CHAOS_PRODUCT"]) if env.get("CHAOS_PRODUCT") else None


def _patience(env: Mapping[str, str]) -> float:
    return float(env.get("CHAOS_PATIENCE") or 1)


def _list(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main(os.environ))  # noqa: TID251 - the suite's own knobs
