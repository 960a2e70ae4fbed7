"""
The crash suite in short: a minute of faults, and a judge who is shown to be awake.

`make chaos` runs it for as long as one likes, with every fault there is.
"""

from __future__ import annotations

import secrets

import pytest

from tests.chaos.broken import BREAKS, is_seen
from tests.chaos.campaign import Campaign
from tests.chaos.clients import Rates
from tests.chaos.faults import ALL
from tests.chaos.stage import fresh_target

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: Every kind of process, and Redis and Postgres.
FAULTS = (
    "shard",
    "writer",
    "broadcaster",
    "replica",
    "supervisor",
    "valkey",
    "postgres",
    "everything",
)
#: Tests run on machines that do other things as well: here it is about what is kept, not
#: about how soon.
PATIENCE = 5.0


async def test_every_promise_is_kept_while_processes_die() -> None:
    """Each kind of process is killed under load; the clients' memory agrees with the rows."""
    seed = secrets.randbelow(1 << 32)
    async with fresh_target("embedded") as target:
        campaign = Campaign(target, seed, Rates(60, 60, 20), patience=PATIENCE)
        await campaign.open()
        for name in FAULTS:
            await campaign.round([ALL[name](campaign.scene)])
        report = await campaign.close()
    assert report.violations == [], f"CHAOS_SEED={seed}"
    assert report.strikes.keys() >= {f"kill {name}" for name in FAULTS}


@pytest.mark.parametrize("bug", [BREAKS[0]], ids=lambda bug: bug.name)
async def test_the_judge_sees_a_bug_that_is_built_in(bug) -> None:  # type: ignore[no-untyped-def]
    """A product that breaks a promise does not pass."""
    assert await is_seen(bug, seed=1)
