"""``ray-tracking limits``, against a service that runs."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from ray_tracking import cli
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(stack: Stack) -> Service:
    return await stack.service(api_keys=["rules:admin+read", "reads:read"])


async def limits(service: Service, *arguments: str, key: str = "rules") -> Result:
    """The command, as a shell runs it."""
    return await asyncio.to_thread(
        CliRunner(env={"RAY_TRACKING_API_KEY": key}).invoke,
        cli.main,
        ["limits", "--url", service.url, *arguments],
    )


@pytest.mark.parametrize("campaign", ["spring", "a/b c?d", "é"])
async def test_limits_are_shown_set_and_taken_back(guarded: Service, campaign: str) -> None:
    before = await limits(guarded, campaign)
    assert "those of all campaigns" in before.output
    assert "10,000 events in any 60 s" in before.output

    after = await limits(guarded, campaign, "--max-events", "50000", "--burst", "7")
    assert "its own, since" in after.output
    assert "50,000 events in any 60 s" in after.output
    shown = json.loads((await limits(guarded, campaign, "--json", key="reads")).output)
    assert (shown["campaignId"], shown["burstCapacity"]) == (campaign, 7)

    again = await limits(guarded, campaign, "--reset")
    assert "those of all campaigns" in again.output


async def test_what_cannot_be_is_one_line(guarded: Service) -> None:
    refused = await limits(guarded, "spring", "--burst", "7", key="reads")
    assert refused.exit_code == 2
    assert "answered 403" in refused.stderr
    for arguments in (["--burst", "0"], ["--reset", "--burst", "7"]):
        wrong = await limits(guarded, "spring", *arguments)
        assert wrong.exit_code == 2
        assert "Error" in wrong.stderr
