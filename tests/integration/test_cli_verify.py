"""``ray-tracking verify``, on a database that has rows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ray_tracking import cli
from tests.integration.test_replays import a_past
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def verify(stack: Stack, *arguments: str, **more: str | None) -> Result:
    """As an operator runs it."""
    env = {
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "TRACKING_DATABASE_SCHEMA": stack.schema,
        "TRACKING_PARTITIONS": str(stack.partitions),
    }
    return await asyncio.to_thread(
        CliRunner(env=env | more).invoke, cli.main, ["verify", *arguments]
    )


async def test_a_campaign_that_is_not_there_is_not_equal(stack: Stack) -> None:
    """A name that was mistyped is no proof of anything."""
    await a_past(stack)
    for arguments in (["c-none"], ["--json", "c-none"]):
        result = await verify(stack, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "ray-tracking: there are no rows and no figures of c-none\n"

    several = await verify(stack, "c1", "c-none", "d-none")
    assert several.exit_code == 2
    assert several.stdout.startswith("c1: ")
    assert several.stderr.endswith("of c-none, d-none\n")


async def test_rows_need_no_event_log(stack: Stack, tmp_path: Path) -> None:
    """With a Postgres that is named, no server is started for it."""
    await a_past(stack)
    nowhere = tmp_path / "nowhere"
    result = await verify(stack, "c1", REDIS_URL=None, TRACKING_DATA_DIR=str(nowhere))

    assert result.exit_code == 0, result.output
    assert not nowhere.exists()
