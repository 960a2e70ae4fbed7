"""What an operator sees of a running service: books, modes, health, and Ray's own view."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import urllib.request
from typing import Any

import psutil
import pytest

from tests.e2e.service import Service, eventually
from tests.support.collector import Caller, Collector
from tests.support.events import item

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def metrics(service: Service) -> dict[str, float]:
    lines = service.call("GET", "/metrics").body.decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("ray_tracking_"): float(value) for name, value in samples}


def stats(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", "/metrics/tracking").body
    return found


def works_in(service: Service, mode: str, *, lingers: bool) -> bool:
    """Whether the mode is in force, and the writers have heard of it."""
    found = metrics(service)
    return (
        found[f'processing_mode{{mode="{mode}"}}'] == 1
        # Longer than asked for, where a flush takes its time.
        and (found["flush_linger_seconds"] >= 0.1) == lingers
    )


def test_the_mode_follows_the_load_and_the_writers_follow_the_mode(service: Service) -> None:
    eventually(lambda: works_in(service, "REALTIME", lingers=False), 30, "realtime at rest")
    before = stats(service)["batchesProcessed"]
    events = [item(campaignId="modes") for _ in range(3000)]
    batch = [{"eventType": one["eventType"], "data": one["eventData"]} for one in events]
    assert service.call("POST", "/events/batch", {"events": batch}).status == 200
    eventually(lambda: works_in(service, "BATCH", lingers=True), 15, "batch under load")
    killed = service.actor_pid("Writer")
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: _is_replaced(service, killed), 30, "another writer")
    # It begins in HYBRID and hears what is in force; what was counted stays counted.
    eventually(lambda: works_in(service, "REALTIME", lingers=False), 30, "realtime after it")
    eventually(lambda: stats(service)["batchesProcessed"] > before, 30, "batches are counted")
    assert stats(service)["peakThroughput"] >= 500


def _is_replaced(service: Service, killed: int) -> bool:
    pids = service.actor_pids("Writer", at_least=0)
    return bool(pids) and killed not in pids and metrics(service)['part_up{part="writer-0"}'] == 1


def test_a_traced_event_can_be_followed_to_its_row(service: Service, collector: Collector) -> None:
    caller = Caller()
    answer = service.call("POST", "/events", item(campaignId="traced"), headers=caller.headers)
    assert answer.status == 202
    spans = eventually(
        lambda: len(caller.of(collector)) == 2 and caller.of(collector), 30, "both spans"
    )
    assert spans["POST /events"].part.startswith("ingress-")
    assert spans["store EMAIL_OPEN"].part == "writer-0"


def test_ray_hands_down_that_a_process_has_one_heap(service: Service) -> None:
    """With libc's one for each thread, a replica under load grows for hours."""
    (raylet,) = [one for one in service.processes() if one.name() == "raylet"]
    assert raylet.environ()["MALLOC_ARENA_MAX"] == "1"


def _ours_and_rays(service: Service) -> set[int]:
    """Without Postgres, whose workers come and go."""
    found = set()
    for process in service.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() != "postgres":
                found.add(process.pid)
    return found


def test_at_rest_no_process_comes_and_goes(service: Service) -> None:
    """Each would read all of Ray first, which takes a second of a processor."""
    known: set[int] = set()
    since_s = time.monotonic()

    def are_the_same_for_a_while() -> bool:
        nonlocal since_s
        now = _ours_and_rays(service)
        if not now <= known:
            since_s = time.monotonic()
            known.update(now)
        return time.monotonic() - since_s > 10

    eventually(are_the_same_for_a_while, 60, "ten seconds without a new process")


def test_a_part_that_is_stopped_is_named_with_what_to_do(service: Service) -> None:
    eventually(lambda: _writers(service)["status"] == "healthy", 30, "healthy before")
    was = _writers(service)["since"]
    pid = service.actor_pid("Writer")
    os.kill(pid, signal.SIGSTOP)
    try:
        # Replicas hear of it within a second of each other.
        told = eventually(lambda: _troubled(service), 15, "silent")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told["parts"] == ["writer-0"]
    assert told["since"] > was
    assert told["action"]
    eventually(lambda: _writers(service)["status"] == "healthy", 30, "healthy again")


def _writers(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", "/health/tracking/writers").body
    return found


def _troubled(service: Service) -> dict[str, Any] | None:
    found = _writers(service)
    return found if found["status"] == "degraded" else None


def test_what_is_said_is_json_and_says_who_speaks(service: Service) -> None:
    """Behind what Ray puts before each line on the console: the name of the actor."""

    def begun() -> list[str]:
        lines = service.output.read_text().splitlines()
        return [line for line in lines if '"shard started"' in line and "shard-0 pid=" in line]

    eventually(begun, 15, "printed while it runs")
    started = begun()[0]
    said = json.loads(started[started.index("{") :])
    assert (said["level"], said["part"], said["logger"]) == (
        "info", "shard-0", "ray_tracking.shard",
    )  # fmt: skip
    lines = service.output.read_text().splitlines()
    supervisor = [line for line in lines if '"part":"supervisor"' in line]
    assert all(json.loads(line[line.index("{") :])["timestamp"] for line in supervisor)


def test_the_books_of_the_whole_are_closed(service: Service) -> None:
    """One scrape of any replica has the books closed, for everything that other tests did."""
    found = metrics(service)
    counted = ("rows", "dead", "discarded", "missing")
    ends = [f"{name}_events_total" for name in counted]
    ends += [f"{name}_events" for name in ("in_log", "parked", "spooled")]
    accepted = found["accepted_events_total"]
    assert accepted == sum(found[name] for name in ends)
    eventually(lambda: metrics(service)["unaccounted_events"] == 0, 10, "nothing is missing")
    stored = service.sql("SELECT count(*) AS n FROM events")[0]["n"]
    assert stored <= accepted


def test_rays_own_metrics_have_the_gauges_under_the_same_names(service: Service) -> None:
    (dashboard,) = re.findall(r"Ray dashboard +(http://\S+)", service.output.read_text())
    (found,) = _get_json(f"{dashboard}/api/prometheus/sd")

    def shown() -> set[str]:
        text = "".join(_get(f"http://{target}/metrics") for target in found["targets"])
        return set(re.findall(r"^(ray_tracking_\w+)", text, re.MULTILINE))

    eventually(lambda: "ray_tracking_in_log_events" in shown(), 40, "in Ray's metrics")
    assert shown() >= {"ray_tracking_backlog_age_seconds", "ray_tracking_circuit_breaker"}
    assert "ray_tracking_part_up" not in shown()


def test_rays_dashboard_calls_the_actors_what_they_are(service: Service) -> None:
    (dashboard,) = re.findall(r"Ray dashboard +(http://\S+)", service.output.read_text())

    def called() -> set[str]:
        listed = _get_json(f"{dashboard}/api/v0/actors?detail=1")["data"]["result"]["result"]
        return {actor["repr_name"] for actor in listed if actor["state"] == "ALIVE"}

    # One that was started again has no name at first.
    eventually(lambda: called() >= {"shard-0", "writer-0", "broadcaster"}, 30, "they have names")
    serving = _get_json(f"{dashboard}/api/serve/applications/")["applications"]["tracking"]
    assert serving["deployments"].keys() == {"Supervisor", "Ingress"}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=15) as answer:
        return str(answer.read().decode())


def _get_json(url: str) -> Any:
    return json.loads(_get(url))
