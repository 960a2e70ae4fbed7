"""Whatever starts also stops: cleanly, in time, and without leaving anything behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.attached import Listener
from tests.e2e.service import BIN, STOP_WITHIN_S, Service, alive, eventually, tracebacks

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

REPOSITORY = Path(__file__).parents[2]


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def send_one(service: Service, event_id: str) -> None:
    data = {
        "campaignId": "c1", "leadId": "l1", "emailId": "e1",
        "eventId": event_id, "timestamp": "2026-11-01T09:00:00Z",
    }  # fmt: skip
    answer = service.call("POST", "/events", {"eventType": "EMAIL_OPEN", "eventData": data})
    assert answer.status == 202


def assert_nothing_is_left(service: Service, before: list[object]) -> None:
    eventually(
        lambda: not any(alive(process) for process in before),  # type: ignore[arg-type]
        5,
        "no process is left",
    )
    assert port_is_free(service.port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_run_stops_cleanly(own_service: Service, number: int) -> None:
    """Ctrl-C goes to the whole group of processes, as a terminal sends it."""
    own_service.start()
    send_one(own_service, "before-the-end")
    processes = own_service.processes()
    began_s = time.monotonic()

    own_service.send_signal(number, group=number == signal.SIGINT)

    assert own_service.process.wait(STOP_WITHIN_S) == 0, own_service.output.read_text()[-3000:]
    assert time.monotonic() - began_s < STOP_WITHIN_S
    assert_nothing_is_left(own_service, list(processes))
    assert tracebacks(own_service) == []


def test_a_second_copy_runs_beside_the_first(service: Service, own_service: Service) -> None:
    """
    Another data directory and another port are all that it takes. Who has attached to the second
    hears that it ends, and not before.
    """
    own_service.start()
    listener = Listener(own_service)
    send_one(own_service, "only-in-the-second")
    eventually(
        lambda: own_service.sql(
            "SELECT 1 FROM events WHERE client_event_id = 'only-in-the-second'"
        ),
        10,
        "the row is in the second",
    )
    query = "SELECT 1 FROM events WHERE client_event_id = 'only-in-the-second'"
    assert service.sql(query) == []
    assert "shutdown" not in [event for event, *_ in listener.heard]
    assert own_service.stop() == 0
    listener.until("shutdown")
    listener.kill()
    assert service.call("GET", "/readyz").status == 200


def test_a_taken_port_stops_the_start_with_one_line(service: Service, tmp_path: Path) -> None:
    """Otherwise two services would share the port, and each get half of the events."""
    second = subprocess.run(
        [str(BIN / "ray-tracking"), "run", "--port", str(service.port)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert str(service.port) in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


def test_a_data_directory_in_use_stops_the_start_with_one_line(service: Service) -> None:
    """Otherwise both would write the same log, and the end of one would end the other's servers."""
    second = subprocess.run(
        [str(BIN / "ray-tracking"), "run", "--data-dir", str(service.data_dir)],
        cwd=service.directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert second.stderr == (
        f"ray-tracking: data_dir: {service.data_dir} is in use by ray-tracking run "
        f"(process {service.process.pid}); stop it, or choose another TRACKING_DATA_DIR\n"
    )
    assert service.call("GET", "/readyz").status == 200


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none", "Postgres cannot be reached"),
        ("REDIS_URL", "redis://127.0.0.1:1", "Redis cannot be reached"),
        ("TRACKING_MAX_BATCH_SIZE", "many", "TRACKING_MAX_BATCH_SIZE"),
        ("TRACKING_GEO_DATABASE", "/nope.mmdb", "geo_database: /nope.mmdb: No such file"),
    ],
)
def test_what_cannot_work_stops_the_start_with_one_line(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    service = Service(tmp_path, **{name: value})
    service.launch()
    assert service.process.wait(30) == 2
    lines = service.output.read_text().strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


@pytest.fixture
def served(own_service: Service) -> Service:
    """The same application, deployed with Serve's own command."""
    text = (REPOSITORY / "serve_configs" / "local.yaml").read_text()
    (own_service.directory / "local.yaml").write_text(text.replace("8000", str(own_service.port)))
    own_service.command = [str(BIN / "serve"), "run", "local.yaml"]
    own_service.start()
    send_one(own_service, "through-serve-run")
    return own_service


def test_serve_run_stops_on_ctrl_c(served: Service) -> None:
    processes = served.processes()

    assert served.stop(signal.SIGINT) == 0, served.output.read_text()[-3000:]
    assert_nothing_is_left(served, list(processes))


def test_serve_shutdown_stops_everything_of_ours(served: Service) -> None:
    """Ray itself stays: it was there before, or another application is on it."""
    ours = [process for process in served.processes() if is_ours(process)]
    assert len(ours) >= 7  # two replicas, supervisor, shard, writer, guard, two servers or more
    found = re.search(r"dashboard at .*?(http://[\d.:]+)", served.output.read_text())
    assert found is not None
    subprocess.run(
        [str(BIN / "serve"), "shutdown", "-y", "--address", found[1]],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    eventually(lambda: not any(alive(process) for process in ours), STOP_WITHIN_S, "ours have gone")
    assert port_is_free(served.port)


def is_ours(process: psutil.Process) -> bool:
    """One of the application's own processes, not one of Ray's."""
    title = " ".join(process.cmdline())
    marks = ("tracking", "ray::Shard", "ray::Writer", "valkey-server", "bin/postgres", "postgres:")
    return any(mark in title for mark in marks) and "raylet" not in title


def test_serves_own_proxy_as_the_listener(own_service: Service) -> None:
    """``listener: serve`` answers the same, through Serve's proxy."""
    own_service.settings["TRACKING_LISTENER"] = "serve"
    own_service.start()
    send_one(own_service, "through-the-proxy")
    answer = own_service.call("GET", "/campaigns/c1/stats")
    assert answer.status == 200
    eventually(
        lambda: own_service.call("GET", "/campaigns/c1/stats").body["opens"] == 1, 10, "counted"
    )
    assert own_service.stop() == 0
