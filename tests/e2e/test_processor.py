"""The processor, attached to the running service from processes of their own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.attached import Listener, attached
from tests.e2e.service import Service, eventually
from tests.support.events import item

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def listener(service: Service) -> Iterator[Listener]:
    """One for all tests here."""
    listening = Listener(service)
    yield listening
    logged = listening.end()
    # Both for the service's own and for its own end; the failing handler was in nobody's way.
    assert ["shutdown"] in listening.heard[-5:]  # each handler has a pace of its own
    assert logged.count("a handler of 'event_broadcasted' failed; said once") == 1


def test_it_works_wherever_ray_does(service: Service) -> None:
    """Script, driver, task, actor, and a deployment of another application."""
    process = attached(service, "tests.support.attached_process", "attached")
    printed, logged = process.communicate(timeout=120)
    assert process.returncode == 0, logged
    told = json.loads(printed.splitlines()[-1])

    places = ("script", "driver", "task", "actor", "deployment")
    for place in places:
        assert told[place]["success"], told
        assert told[place]["eventId"] == f"attached-{place}"
    assert (told["ray_after_it"], told["still_there"]) == (False, True)
    assert "no Ray cluster at 127.0.0.1:1" in told["nowhere"]
    query = "SELECT client_event_id FROM events WHERE campaign_id = 'attached'"
    ids = eventually(lambda: len(rows := service.sql(query)) == 9 and rows, 10, "nine rows")
    named = sorted(row["client_event_id"] for row in ids if row["client_event_id"])
    assert named == sorted(f"attached-{place}" for place in places)

    rest = told["everything"]
    assert (rest["batch"]["processed"], rest["batch"]["invalid"]) == (3, 1)
    assert rest["refused"]["error"] == "Event validation failed"
    assert {"database", "redis", "queues", "memory", "websocket"} == rest["parts"].keys()
    assert rest["parts"]["redis"] == rest["health"]["components"]["redis"]["status"]
    assert rest["stats"]["eventsProcessed"] >= 1
    assert rest["stats"]["running"] is True
    assert isinstance(rest["buffered"], int)
    assert rest["answered_at_shutdown"] is True


def test_replicas_that_die_cost_no_event(service: Service) -> None:
    """What was under way is asked of the next one, and is stored once."""
    process = attached(service, "tests.support.sending_process", "attached-kill", "400")
    assert process.stdout is not None
    assert process.stdout.readline() == "sending\n"
    for pid in service.actor_pids("ServeReplica:tracking:Ingress"):
        os.kill(pid, signal.SIGKILL)
    printed, logged = process.communicate(timeout=60)
    assert process.returncode == 0, logged
    assert json.loads(printed) == {"success": 400, "refused": []}
    query = """
        SELECT count(*) AS n, count(DISTINCT client_event_id) AS ids
        FROM events WHERE campaign_id = $1
    """
    eventually(lambda: service.sql(query, "attached-kill")[0]["n"] >= 400, 15, "rows")
    (row,) = service.sql(query, "attached-kill")
    assert (row["n"], row["ids"]) == (400, 400)


def test_each_event_is_heard(service: Service, listener: Listener) -> None:
    """Sent over HTTP, heard by its id."""
    sent = item(campaignId="heard", eventId="heard-1")
    assert service.call("POST", "/events", sent).status == 202
    (payload,) = listener.until("event_broadcasted", lambda told: told["eventId"] == "heard-1")
    assert payload == {"campaignId": "heard", "eventType": "EMAIL_OPEN", "eventId": "heard-1"}


def test_a_dead_letter_is_heard(service: Service, listener: Listener) -> None:
    """Postgres refuses one row for what it is."""
    rule = "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison') NOT VALID"
    service.sql(rule)
    try:
        sent = item(campaignId="letters", leadId="poison", eventId="poison-1")
        assert service.call("POST", "/events", sent).status == 202
        (letter,) = listener.until(
            "dead_letter", lambda told: told["eventData"]["eventId"] == "poison-1"
        )
    finally:
        service.sql("ALTER TABLE events DROP CONSTRAINT no_poison")
    assert (letter["status"], letter["attempts"], letter["campaignId"]) == ("dead", 1, "letters")
    shown = service.call("GET", f"/dead-letters/{letter['id']}").body
    assert {name: shown[name] for name in letter} == letter


def is_calm(service: Service) -> bool:
    stats = service.call("GET", "/metrics/tracking").body
    return (stats["backpressureLevel"], stats["processingMode"] == "BATCH") == ("normal", False)


def test_level_and_mode_are_heard_as_they_change(service: Service, listener: Listener) -> None:
    """Rows wait for a lock that somebody holds on their table, and a backlog grows."""
    eventually(lambda: is_calm(service), 30, "what others have sent is no load any more")
    since = len(listener.heard)
    campaigns = [f"backlog-{n}" for n in range(8)]
    with service.locked("events"):
        for campaign in campaigns:
            events = [item(campaignId=campaign) for _ in range(900)]
            items = [{"eventType": one["eventType"], "data": one["eventData"]} for one in events]
            answer = service.call("POST", "/events/batch", {"events": items})
            assert answer.status == 200, answer.body
        (up,) = listener.until("backpressure_changed", since=since)
        (mode,) = listener.until(
            "processing_mode_changed", lambda told: told["newMode"] == "BATCH", since
        )
    assert up["oldLevel"] == "normal"
    assert up["newLevel"] in ("warning", "critical")
    assert mode["oldMode"] in ("REALTIME", "HYBRID")
    listener.until("backpressure_changed", lambda told: told["newLevel"] == "normal", since)


def test_a_breaker_is_heard_as_it_opens_and_closes(service: Service, listener: Listener) -> None:
    """Postgres lets nobody in for a while, and there is a row to be written."""
    since = len(listener.heard)
    with service.shut_database():
        sent = item(campaignId="breaker")
        assert service.call("POST", "/events", sent).status == 202
        assert listener.until("circuit_opened", since=since) == [{"name": "database"}]
    assert listener.until("circuit_closed", since=since) == [{"name": "database"}]


def test_a_supervisor_that_begins_anew_is_heard(service: Service, listener: Listener) -> None:
    """Its successor says that it has begun, and then, now and again, how everything is."""
    since = len(listener.heard)
    os.kill(service.actor_pid("ServeReplica:tracking:Supervisor"), signal.SIGKILL)
    assert listener.until("initialized", since=since) == []
    (health,) = listener.until("health_check", since=since)
    (stats,) = listener.until("metrics_collected", since=since)
    assert health["overall"] in ("healthy", "degraded")
    assert "redis" in health["components"]
    assert stats["initialized"] is True
    assert stats["memoryUsage"]["rss"] > 0
