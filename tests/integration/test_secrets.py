"""With a secret in every setting that may hold one, nothing that anybody reads shows any of it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ray_tracking import cli
from ray_tracking.actors.tuning import Tuning
from ray_tracking.http.openapi import document
from ray_tracking.settings import Settings
from ray_tracking.settings.explain import SECRETS
from tests.support.events import item
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

NEEDLE = "s3cr3t"
KEY = f"key-{NEEDLE}"
#: Of servers that are not there: errors are where secrets come out.
DATABASE = f"postgresql://user-a:{NEEDLE}-a@127.0.0.1:1/x"
REDIS = f"redis://user-b:{NEEDLE}-b@127.0.0.1:1"
ARGS: dict[str, Any] = {
    "database_url": DATABASE,
    "redis_url": REDIS,
    "email_encryption_key": f"{NEEDLE}-{'k' * 32}",
    "api_keys": [f"{KEY}:ingest+read+admin"],
}
ENVIRONMENT = {
    "DATABASE_URL": DATABASE,
    "REDIS_HOST": "127.0.0.1",
    "REDIS_PORT": "1",
    "REDIS_PASSWORD": f"{NEEDLE}-c",
    "EMAIL_ENCRYPTION_KEY": f"{NEEDLE}-{'k' * 32}",
    "TRACKING_API_KEYS": f"{KEY}:ingest+read+admin",
}


async def test_every_setting_that_is_a_secret_is_tried() -> None:
    tried = {name.lower().removeprefix("tracking_") for name in ENVIRONMENT} | set(ARGS)

    assert tried >= SECRETS


async def calls(service: Service) -> list[str]:
    """Everything that every route answers, with the key, without one, and with a wrong one."""
    said = []
    for path, methods in document("http://t")["paths"].items():
        if path.endswith("/live"):
            continue  # it never ends; who may see it is asked as everywhere
        here = path.replace("{campaign_id}", "c").replace("{token}", "x").replace("{lead_id}", "l")
        here = here.replace("{letter_id}", "x").replace("{replay_id}", "x")
        for method in methods:
            for key in (KEY, None, f"{KEY}x"):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                value = item() if method in ("post", "put") else None
                async with asyncio.timeout(10):
                    answer = await service.call(method, here, value=value, headers=headers)
                said.append(f"{method} {path} {answer.status} {answer.headers!r} {answer.body!r}")
    return said


async def test_no_answer_and_no_log_shows_a_secret(
    stack: Stack,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    tuning = Tuning(Settings.load({**ARGS, "log_level": "debug"}, env={}))
    tuning.change({"burst_capacity": 7, "log_level": "debug"})
    tuning.change({"log_level": NEEDLE[:2]})
    settings = {name: value for name, value in ARGS.items() if name != "database_url"}
    service = await stack.service(**settings, database_url=DATABASE)

    async def config() -> dict[str, Any]:
        return tuning.describe({"shard-0": None})

    service.ports.config = config
    said = await calls(service)
    shown = capfd.readouterr()
    logged = [record.getMessage() + str(record.exc_info) for record in caplog.records]

    assert any("/config 200" in line and "user-a" in line for line in said), "it was asked"
    for text in [*said, *logged, shown.out, shown.err, repr(tuning.settings), str(tuning.settings)]:
        assert NEEDLE not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["check-config"],
        ["check-config", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["migrate"],
        ["verify"],
        ["log", "gaps"],
        ["status"],
        ["retention"],
    ],
    ids=" ".join,
)
async def test_no_command_shows_a_secret(arguments: list[str], tmp_path: Path) -> None:
    env = ENVIRONMENT | {"TRACKING_DATA_DIR": str(tmp_path), "TRACKING_PORT": "1"}
    result = await asyncio.to_thread(CliRunner().invoke, cli.main, arguments, env=env)

    assert result.output
    assert NEEDLE not in result.output
    assert NEEDLE not in repr(result.exception)


async def test_a_start_that_fails_shows_none(tmp_path: Path) -> None:
    """From the outside: one line, of the server that is not there."""
    for lacking, url in (("REDIS_URL", REDIS), ("DATABASE_URL", DATABASE)):
        done = await asyncio.to_thread(
            subprocess.run,
            [Path(sys.executable).parent / "ray-tracking", "run"],
            env={"PATH": "/usr/bin:/bin", "TRACKING_DATA_DIR": str(tmp_path), lacking: url},
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.returncode == 2
        assert lacking in done.stderr
        assert NEEDLE not in done.stdout + done.stderr


async def test_an_impossible_setting_is_named_and_not_shown() -> None:
    for name, value in {
        "EMAIL_ENCRYPTION_KEY": NEEDLE,
        "TRACKING_API_KEYS": f"{KEY}:everything",
        "DATABASE_URL": f"mysql://u:{NEEDLE}@db/x",
        "REDIS_URL": f"http://:{NEEDLE}@cache",
    }.items():
        result = await asyncio.to_thread(
            CliRunner().invoke, cli.main, ["check-config"], env={name: value}
        )

        assert result.exit_code == 2
        assert name in result.output
        assert NEEDLE not in result.output
