"""Everything dies at once while events flow; the next start has every acknowledged one."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.service import (
    BIN,
    Service,
    acknowledged,
    alive,
    eventually,
    missing_rows,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_after_kill_9_of_everything_each_acknowledged_event_is_one_row(
    own_service: Service,
) -> None:
    """
    The client's own memory is compared with the rows: what it was told was durable
    is there once, whichever process died at whichever moment.
    """
    service = own_service
    service.start()
    memory = service.directory / "acknowledged.jsonl"
    with (service.directory / "simulate.log").open("wb") as output:
        simulation = subprocess.Popen(
        [
            str(BIN / "ray-tracking"), "simulate", "--url", service.url,
            "--rate", "600", "--duration", "300", "--acknowledged", str(memory), "--retry-for", "0",
        ],
        stdout=output,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        eventually(lambda: memory.exists() and len(acknowledged(memory)) > 2000, 60, "events flow")
        victims = service.kill_everything()
        assert len(victims) > 10, victims
    finally:
        simulation.kill()
        simulation.wait(10)
    eventually(lambda: not any(alive(victim) for victim in victims), 5, "all are dead")

    service.start()
    eventually(lambda: not missing_rows(service, memory), 30, "every acknowledged event is a row")
    doubled = service.sql(
        "SELECT campaign_id, client_event_id, count(*) FROM events "
        "WHERE client_event_id IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert doubled == []
    assert service.call("GET", "/health/tracking").body["overall"] == "healthy"
    assert service.stop() == 0
