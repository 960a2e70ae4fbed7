"""
``serve_configs/production.yaml`` on two nodes: events through both, one is killed, and ingress
grows and shrinks with the load.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
import yaml

from ray_tracking.stores.embedded import EmbeddedServers, ServerUrls
from tests.e2e.service import BIN, free_port
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]

PRODUCTION = Path(__file__).parents[2] / "serve_configs" / "production.yaml"
#: In every secret that the nodes are given.
NEEDLE = "s3cr3t"
KEY = f"a-key-{NEEDLE}"


@pytest_asyncio.fixture(loop_scope="session")
async def servers(tmp_path: Path) -> AsyncIterator[ServerUrls]:
    running = await EmbeddedServers.start(tmp_path / "servers", postgres=True, valkey=True)
    yield running.urls
    await running.stop()


class Cluster:
    """Two nodes with the application on them."""

    def __init__(self, about: dict[str, Any], ports: list[int], env: dict[str, str]) -> None:
        self.about = about
        self.ports = ports
        self.env = env

    def deploy(self, file: Path) -> None:
        subprocess.run(
            [BIN / "serve", "deploy", file, "-a", self.about["dashboard"]],
            env=self.env, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def doctor(self, file: Path) -> list[dict[str, Any]]:
        """What ``ray-tracking doctor`` finds; nothing that must be mended."""
        done = subprocess.run(
            [BIN / "ray-tracking", "doctor", file, "--json", "--address", self.about["address"]],
            env=self.env, capture_output=True, timeout=60, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert NEEDLE not in done.stdout + done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return found

    def lines_with(self, text: str) -> list[str]:
        """Of everything that anybody on the nodes has written down."""
        found = []
        for file in Path(self.env["RAY_TMPDIR"]).rglob("*"):
            if file.is_file() and file.suffix in (".log", ".out", ".err", ".json", ".txt"):
                lines = file.read_text(errors="replace").splitlines()
                found += [f"{file.name}: {line}" for line in lines if text in line]
        return found

    def serve_status(self) -> dict[str, Any]:
        """What ``serve status`` prints."""
        done = subprocess.run(
            [BIN / "serve", "status", "-a", self.about["dashboard"]],
            env=self.env, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        found: dict[str, Any] = yaml.safe_load(done.stdout)
        return found

    async def application(self, client: aiohttp.ClientSession) -> dict[str, Any]:
        """As the dashboard's API shows it."""
        async with client.get(f"{self.about['dashboard']}/api/serve/applications/") as answer:
            found = await answer.json()
        application: dict[str, Any] = found["applications"].get("tracking", {})
        if application.get("status") == "DEPLOY_FAILED":
            raise RuntimeError(application)
        return application

    async def replicas(self, client: aiohttp.ClientSession, of: str = "Ingress") -> int:
        """How many of a deployment are running."""
        deployments = (await self.application(client)).get("deployments", {})
        replicas = deployments.get(of, {}).get("replicas", [])
        return sum(replica["state"] == "RUNNING" for replica in replicas)

    async def actors(self, client: aiohttp.ClientSession) -> dict[str, str]:
        """On which node each of our actors works, by its name."""
        async with client.get(f"{self.about['dashboard']}/api/v0/actors?detail=1") as answer:
            found = (await answer.json())["data"]["result"]["result"]
        return {
            actor["name"].split(":")[1]: actor["node_id"]
            for actor in found
            if actor["state"] == "ALIVE" and (actor["name"] or "").startswith("tracking-")
        }


@contextmanager
def two_nodes(env: dict[str, str]) -> Iterator[Cluster]:
    ports = [free_port(), free_port()]
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as directory:
        env = env | {"RAY_TMPDIR": directory}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.nodes", *map(str, ports)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True,
            cwd=PRODUCTION.parents[1], start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            about = next(json.loads(line) for line in process.stdout if line.startswith("{"))
            yield Cluster(about, ports, env)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


def small(directory: Path) -> Path:
    """The shipped file, with numbers that two cores reach and seconds that a test can wait."""
    config = yaml.safe_load(PRODUCTION.read_text())
    (application,) = config["applications"]
    application["args"] |= {"host": "127.0.0.1", "data_dir": str(directory / "data")}
    application["args"] |= {"partitions": 4, "shards": 2, "port": 1}  # each node has its own
    ingress = next(each for each in application["deployments"] if each["name"] == "Ingress")
    ingress["autoscaling_config"] |= {
        "min_replicas": 1, "max_replicas": 3, "look_back_period_s": 2,
        "upscale_delay_s": 0.5, "downscale_delay_s": 2,
    }  # fmt: skip
    ingress["autoscaling_config"]["policy"]["policy_kwargs"] = {"requests_per_s": 5}
    file = directory / "small.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


class Senders:
    """Events one at a time, to any node that takes them; each is sent until it is acknowledged."""

    def __init__(self, client: aiohttp.ClientSession, ports: list[int]) -> None:
        self._client = client
        self._ports = ports
        self._stop = False
        self._number = 0
        self.acknowledged: dict[str, int] = {}

    async def run(self, name: int) -> None:
        turn = name
        while not self._stop:
            self._number += 1
            event_id = f"event-{self._number}"
            body = {
                "eventType": "EMAIL_OPEN",
                "eventData": {
                    "eventId": event_id,
                    "campaignId": f"campaign-{self._number % 16}",
                    "leadId": "l",
                    "emailId": event_id,
                    "timestamp": "2026-11-01T09:00:00Z",
                },
            }
            while True:
                turn += 1
                port = self._ports[turn % 2]
                if await self._send(port, body):
                    self.acknowledged[event_id] = port
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.01)

    async def _send(self, port: int, body: Any) -> bool:
        try:
            async with self._client.post(
                f"http://127.0.0.1:{port}/events",
                json=body,
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=aiohttp.ClientTimeout(total=10),
            ) as answer:
                return answer.status in (200, 202)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    def count(self, port: int) -> int:
        return sum(found == port for found in list(self.acknowledged.values()))

    def stop(self) -> None:
        self._stop = True


async def test_a_node_is_lost_and_nothing_else(servers: ServerUrls, tmp_path: Path) -> None:
    began_s = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began_s:5.1f} s  {what}")

    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}  # noqa: TID251
    env = kept | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        # Of a server that asks for no password.
        "DATABASE_URL": (servers.database_url or "").replace("@", f":{NEEDLE}@", 1),
        "REDIS_URL": servers.redis_url or "",
        "EMAIL_ENCRYPTION_KEY": NEEDLE + "k" * 32,
        "TRACKING_API_KEYS": f"{KEY}:ingest+read+admin",
        "TRACKING_DEDUPLICATION_WINDOW_MS": "600000",
    }
    connector = aiohttp.TCPConnector(force_close=True)
    with two_nodes(env) as cluster:
        say("two nodes")
        async with aiohttp.ClientSession(connector=connector) as client:
            senders = Senders(client, cluster.ports)

            async def running(number: int) -> bool:
                return await cluster.replicas(client) == number

            file = small(tmp_path)
            nodes_seen = {finding["where"] for finding in cluster.doctor(file)}
            assert len([where for where in nodes_seen if where.startswith("node ")]) == 2
            say("both are fit")
            cluster.deploy(file)
            await eventually(lambda: running(1), 60)
            say("one replica")
            tasks = [asyncio.create_task(senders.run(n)) for n in range(4)]
            await eventually(lambda: running(3), 60)
            say("three replicas")
            nodes = await cluster.actors(client)
            assert {"shard-0", "shard-1", "writer-0", "broadcaster"} == set(nodes)
            assert len(set(nodes.values())) == 2, "they are spread"
            before = [senders.count(port) for port in cluster.ports]
            await eventually(
                lambda: all(
                    senders.count(port) > count + 20
                    for port, count in zip(cluster.ports, before, strict=True)
                ),
                20,
            )
            say("events through both")
            shown = cluster.serve_status()["applications"]["tracking"]
            assert set(shown["deployments"]) == {"Ingress", "Supervisor"}

            os.kill(cluster.about["raylet"], signal.SIGKILL)
            say("killed")

            async def all_on_the_head() -> bool:
                nodes = await cluster.actors(client)
                return len(nodes) == 4 and cluster.about["other"] not in nodes.values()

            await eventually(all_on_the_head, 60)
            say("actors are back")
            count = senders.count(cluster.ports[0])
            await eventually(lambda: senders.count(cluster.ports[0]) > count + 50, 40)
            say("events go on")
            await eventually(lambda: running(3), 60)
            say("three replicas again")
            senders.stop()
            await asyncio.wait_for(asyncio.gather(*tasks), 30)
            await eventually(lambda: running(1), 60)
            say("one replica")
            await eventually(lambda: all_stored(servers, senders.acknowledged), 20)
            say(f"{len(senders.acknowledged)} events, each a row")
            assert cluster.lines_with(NEEDLE) == []
            assert cluster.lines_with("shard started")


async def all_stored(servers: ServerUrls, acknowledged: dict[str, int]) -> bool:
    """Is each acknowledged event exactly one row, and nothing else there?"""
    connection = await asyncpg.connect(servers.database_url)
    try:
        rows = await connection.fetch("SELECT client_event_id FROM events")
    finally:
        await connection.close()
    ids = [row["client_event_id"] for row in rows]
    return len(ids) == len(set(ids)) and set(ids) >= acknowledged.keys()
