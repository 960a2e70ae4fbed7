"""``ray-tracking doctor`` on this machine, with real servers."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ray_tracking import cli
from tests.support.service import Service
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def doctor(stack: Stack, *arguments: str, **env: str) -> Result:
    """As an operator runs it."""
    known = {
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "TRACKING_PORT": "0",
        "RAY_ADDRESS": "",
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        known["TRACKING_PORT"] = str(probe.getsockname()[1])
    return await asyncio.to_thread(
        CliRunner().invoke, cli.main, ["doctor", *arguments], env=known | env
    )


def findings(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    shown = json.loads(result.stdout)["findings"]
    return {(each["where"], each["what"]): each for each in shown}


async def test_a_machine_that_is_fit(stack: Stack) -> None:
    result = await doctor(stack, "--json")

    assert result.exit_code == 0, result.output
    found = findings(result)
    assert found["postgres", "fsync"]["state"] == "ok"
    assert found["redis", "appendfsync"]["found"] == "always"
    assert found["redis", "maxmemory-policy"]["state"] == "ok"
    assert {state["state"] for state in found.values()} <= {"ok", "warn"}


async def test_a_redis_that_throws_events_away_must_be_mended(stack: Stack) -> None:
    await stack.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        result = await doctor(stack)
    finally:
        await stack.redis.config_set("maxmemory-policy", "noeviction")

    assert result.exit_code == 1
    assert "allkeys-lru" in result.output
    assert "CONFIG SET maxmemory-policy noeviction" in result.output


async def test_servers_that_are_away_are_named_without_their_passwords(stack: Stack) -> None:
    urls = {
        "DATABASE_URL": "postgresql://user:s3cret@127.0.0.1:1/x",
        "REDIS_URL": "redis://:s3cret@127.0.0.1:1",
    }
    result = await doctor(stack, "--json", **urls)

    assert result.exit_code == 1
    found = findings(result)
    for name, variable in (("postgres", "DATABASE_URL"), ("redis", "REDIS_URL")):
        assert found[name, "reachable"]["state"] == "fail"
        assert variable in found[name, "reachable"]["advice"]
    assert "s3cret" not in result.output


async def test_a_port_is_taken_or_ours(shared: Stack, service: Service) -> None:
    ours = await doctor(shared, "--json", TRACKING_PORT=str(service.port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = await doctor(shared, "--json", TRACKING_PORT=str(port))

    assert findings(ours)["this machine", f"port 127.0.0.1:{service.port}"]["state"] == "ok"
    assert findings(taken)["this machine", f"port 127.0.0.1:{port}"]["state"] == "fail"
    assert taken.exit_code == 1


async def test_a_data_directory_that_cannot_be_is_found(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = await doctor(stack, "--json", TRACKING_DATA_DIR=str(tmp_path / "file" / "data"))

    assert result.exit_code == 1
    assert findings(result)["this machine", "data directory"]["state"] == "fail"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRACKING_GEO_DATABASE", "/nope.mmdb"),
        ("TRACKING_VALIDATION_RULES", "no_such.rules:rule"),
    ],
)
async def test_what_a_setting_names_and_is_not_there_is_one_line(
    stack: Stack, name: str, value: str
) -> None:
    """As check-config and a start say it."""
    result = await doctor(stack, **{name: value})

    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert name.removeprefix("TRACKING_").lower() in result.stderr
    assert value in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-file.yaml"], "cannot be read"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_asked_is_one_line(
    stack: Stack, arguments: list[str], says: str
) -> None:
    result = await doctor(stack, *arguments)

    assert result.exit_code == 2
    assert says in result.output
    assert "Traceback" not in result.output
