"""A redeployment under load: nobody is refused, nothing is lost, nothing is left."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.e2e.sending import Sender, assert_clear_answers, assert_each_is_one_row, running
from tests.e2e.service import BIN, STOP_WITHIN_S, Service, alive, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LOCAL = Path(__file__).parents[2] / "serve_configs" / "local.yaml"
REPLICAS = "ray::ServeReplica:tracking:"
SHARDS = "ray::ShardActor"
WRITERS = "ray::WriterActor"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Deployed with Serve's own command, with two replicas."""
    made = Service(tmp_path_factory.mktemp("served"))
    write_config(made)
    made.command = [str(BIN / "serve"), "run", "local.yaml"]
    made.start()
    try:
        yield made
    finally:
        made.kill_everything()


def write_config(service: Service, *args: str, changes: Mapping[str, Any] | None = None) -> None:
    lines = [LOCAL.read_text().replace("8000", str(service.port)), "      ingress_replicas: 2"]
    lines += [f"      {arg}" for arg in args]
    if changes is not None:
        lines += ["    deployments:", f"      - {{name: Supervisor, user_config: {dict(changes)}}}"]
    (service.directory / "local.yaml").write_text("\n".join(lines) + "\n")


def serve(service: Service, *arguments: str) -> str:
    """What a command of Serve's says, for the Ray on which the service is."""
    found = re.search(r"dashboard at .*?(http://[\d.:]+)", service.output.read_text())
    assert found is not None
    done = subprocess.run(
        [str(BIN / "serve"), *arguments, "--address", found[1]],
        cwd=service.directory, check=True, capture_output=True, timeout=60, text=True,
    )  # fmt: skip
    return done.stdout


def pids(service: Service, *titles: str) -> set[int]:
    found = set()
    for process in service.processes():
        try:
            if " ".join(process.cmdline()).startswith(titles):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def redeployed(service: Service, before: set[int]) -> bool:
    """Whether the three replicas are all new ones."""
    now = pids(service, REPLICAS)
    return len(now) == 3 and not now & before


@pytest.mark.parametrize(
    ("setting", "shards_stay"),
    [("answer_timeout_ms: 60", True), ("max_events_per_window: 9000", False)],
    ids=["same-shards", "other-shards"],
)
def test_a_redeployment_under_load_is_hardly_noticed(
    served: Service, setting: str, shards_stay: bool
) -> None:
    """Each connection gets an answer; what was acknowledged is one row."""
    replicas, shards = pids(served, REPLICAS), pids(served, SHARDS)
    senders = [
        Sender(served, f"rolling-{shards_stay}-{n}", keep_alive=n % 2 == 0) for n in range(6)
    ]
    write_config(served, setting)
    with running(senders):
        serve(served, "deploy", "local.yaml")
        eventually(lambda: redeployed(served, replicas), 90, "all replicas are new")
        before = [len(sender.acknowledged) for sender in senders]
        eventually(
            lambda: all(len(s.acknowledged) > n + 20 for s, n in zip(senders, before, strict=True)),
            20,
            "the new ones take events",
        )
    assert (pids(served, SHARDS) == shards) == shards_stay
    for sender in senders:
        assert sender.broken == []
        assert_clear_answers(sender)
        assert_each_is_one_row(served, sender)


def test_settings_change_while_everything_runs(served: Service) -> None:
    """By Serve's user_config: no process ends for it, and what is impossible changes nothing."""
    same = pids(served, REPLICAS, SHARDS, WRITERS)

    def deploy(**changes: Any) -> None:
        write_config(served, "max_events_per_window: 9000", changes=changes)
        serve(served, "deploy", "local.yaml")

    def in_force(name: str, value: Any) -> bool:
        config = served.call("GET", "/config").body
        shown = config["settings"][name] == {
            "value": value, "source": "user_config", "changeable": True,
        }  # fmt: skip
        return shown and not config["pending"]

    def sent(number: int) -> list[int]:
        statuses = []
        for n in range(number):
            data = {"campaignId": "burst", "leadId": "l", "emailId": f"{time.time_ns()}-{n}"}
            data["timestamp"] = "2026-11-01T09:00:00Z"
            event = {"eventType": "EMAIL_OPEN", "eventData": data}
            statuses.append(served.call("POST", "/events", event).status)
        return statuses

    deploy(burst_capacity=2, log_level="debug")
    eventually(lambda: in_force("burst_capacity", 2), 20, "the change is in force")
    assert sent(3) == [202, 202, 429]

    deploy(burst_capacity=500, realtime_threshold=0)
    eventually(lambda: served.call("GET", "/config").body["rejected"], 20, "it is refused")
    assert "realtime_threshold: 0" in served.call("GET", "/config").body["rejected"]["error"]
    assert in_force("burst_capacity", 2)

    deploy(burst_capacity=3, answer_timeout_ms=40)
    eventually(lambda: in_force("answer_timeout_ms", 40), 20, "the next is in force")
    changes = served.call("GET", "/config").body["changes"]
    assert [(c["name"], c["old"], c["new"]) for c in changes][:1] == [("burst_capacity", 500, 2)]
    assert pids(served, REPLICAS, SHARDS, WRITERS) == same


def test_serve_shows_the_application(served: Service) -> None:
    shown = yaml.safe_load(serve(served, "status"))["applications"]["tracking"]

    assert shown["status"] == "RUNNING"
    assert {name: part["status"] for name, part in shown["deployments"].items()} == {
        "Ingress": "HEALTHY",
        "Supervisor": "HEALTHY",
    }


def test_a_shutdown_after_it_leaves_nothing(served: Service) -> None:
    """Detached actors of the former generations are not forgotten."""
    ours = [psutil.Process(pid) for pid in pids(served, REPLICAS, SHARDS, WRITERS)]
    assert len(ours) >= 5

    serve(served, "shutdown", "-y")

    eventually(lambda: not any(alive(process) for process in ours), STOP_WITHIN_S, "ours ended")
    eventually(
        lambda: not pids(served, REPLICAS, SHARDS, WRITERS), STOP_WITHIN_S, "no others either"
    )
