"""A replay is a Ray job that survives its process, and commands do the same beside the service."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e.service import BIN, Service, eventually
from tests.support.events import item

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CAMPAIGN = "spring / ü"
EVENTS = 5000
BODY = {
    "campaignId": CAMPAIGN,
    "fromTimestamp": "2000-01-01T00:00:00Z",
    "toTimestamp": "2100-01-01T00:00:00Z",
    "options": {"batchSize": 1},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("replay"))
    try:
        made.start()
        items = [item(campaignId=CAMPAIGN) for _ in range(EVENTS)]
        events = [{"eventType": one["eventType"], "data": one["eventData"]} for one in items]
        assert made.call("POST", "/events/batch", {"events": events}).status == 200
        eventually(lambda: opens(made) == EVENTS, 20, "counted")
        yield made
    finally:
        made.kill_everything()


def opens(service: Service) -> int:
    answer = service.call("GET", "/campaigns/spring%20%2F%20%C3%BC/stats")
    number: int = answer.body["opens"]
    return number


def command(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ray-tracking"), *arguments],
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251
            "TRACKING_DATA_DIR": str(service.data_dir),
            "TRACKING_PORT": str(service.port),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def job_list(service: Service) -> str:
    (dashboard,) = re.findall(r"Ray dashboard +(http://\S+)", service.output.read_text())
    done = subprocess.run(
        [str(BIN / "ray"), "job", "list", "--address", dashboard],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def job_process(service: Service, replay_id: str) -> psutil.Process | None:
    for process in service.processes():
        try:
            line = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "ray_tracking.jobs.replay" in line and replay_id in line:
            return process
    return None


def replay(service: Service, replay_id: str) -> Any:
    return service.call("GET", f"/replays/{replay_id}").body


def test_a_replay_is_a_ray_job_and_outlives_its_process(running: Service) -> None:
    running.sql("UPDATE rollup_totals SET opens = 1")
    answer = running.call("POST", "/replays", BODY)
    assert answer.status == 202, answer.body
    replay_id = answer.body["replayJobId"]
    eventually(lambda: 0 < replay(running, replay_id)["processed"] < EVENTS, 100, "begun")
    process = job_process(running, replay_id)
    assert process is not None
    process.kill()

    eventually(lambda: replay(running, replay_id)["status"] == "SUCCEEDED", 120, "succeeded")
    assert replay(running, replay_id)["processed"] == EVENTS
    assert opens(running) == EVENTS
    listed = job_list(running)
    assert replay_id in listed
    assert f"{replay_id}-2" in listed


def test_a_replay_that_is_stopped_has_no_process(running: Service) -> None:
    replay_id = running.call("POST", "/replays", BODY).body["replayJobId"]
    eventually(lambda: replay(running, replay_id)["processed"], 100, "begun")
    assert running.call("DELETE", f"/replays/{replay_id}").status == 200

    eventually(lambda: job_process(running, replay_id) is None, 20, "ended")
    assert replay(running, replay_id)["status"] == "STOPPED"
    assert opens(running) == EVENTS


def test_commands_find_and_mend_what_is_wrong(running: Service) -> None:
    fine = command(running, "verify")
    running.sql("UPDATE rollup_totals SET opens = 3, unique_opens = 2")
    wrong = command(running, "verify", CAMPAIGN)
    dry = command(running, "replay", "--dry-run", CAMPAIGN)
    done = command(running, "replay", CAMPAIGN)
    again = command(running, "verify", "--json", CAMPAIGN)

    assert fine.returncode == 0, fine.stderr
    assert "1 campaigns" in fine.stdout
    assert wrong.returncode == dry.returncode == 1
    for output in (wrong.stdout, dry.stdout):
        assert re.search(rf"opens +3 +{EVENTS}\n", output), output
    assert done.returncode == 0, done.stderr
    assert f"SUCCEEDED, {EVENTS:,} events" in done.stdout
    assert (again.returncode, json.loads(again.stdout)["equal"]) == (0, True)
    assert opens(running) == EVENTS
