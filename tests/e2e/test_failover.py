"""Parts that are killed come back by themselves, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.service import Answer, Service, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: It takes about 2 s; `make bench BENCH=failover` has the figure. Here a busy machine may be slow.
BACK_WITHIN_S = 15.0


class Sender(threading.Thread):
    """Sends events one after the other, each until it is acknowledged, and remembers."""

    def __init__(self, service: Service, campaign_id: str) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.campaign_id = campaign_id
        self.acknowledged: list[str] = []
        self.answers: list[tuple[float, Answer]] = []
        self._stop_asked = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            event_id = f"{self.campaign_id}-{number}"
            answer = send_open(self.service, self.campaign_id, event_id)
            self.answers.append((time.monotonic(), answer))
            if answer.status in (200, 202):
                self.acknowledged.append(event_id)
                number += 1
            else:
                self._stop_asked.wait(0.05)

    def finish(self) -> None:
        self._stop_asked.set()
        self.join()


def send_open(service: Service, campaign_id: str, event_id: str) -> Answer:
    data = {
        "campaignId": campaign_id,
        "leadId": event_id,
        "emailId": "e1",
        "eventId": event_id,
        "timestamp": "2026-11-01T09:00:00Z",
    }
    return service.call("POST", "/events", {"eventType": "EMAIL_OPEN", "eventData": data})


@contextmanager
def sending(service: Service, *campaign_ids: str) -> Iterator[list[Sender]]:
    senders = [Sender(service, campaign_id) for campaign_id in campaign_ids]
    for sender in senders:
        sender.start()
    try:
        eventually(lambda: all(len(s.acknowledged) > 20 for s in senders), 20, "events flow")
        yield senders
    finally:
        for sender in senders:
            sender.finish()


def rows_of(service: Service, campaign_id: str) -> Counter[str]:
    rows = service.sql("SELECT client_event_id FROM events WHERE campaign_id = $1", campaign_id)
    return Counter(row["client_event_id"] for row in rows)


def assert_each_is_one_row(service: Service, sender: Sender) -> None:
    expected = Counter(dict.fromkeys(sender.acknowledged, 1))
    eventually(
        lambda: not expected - rows_of(service, sender.campaign_id),
        15,
        "every acknowledged event is a row",
    )
    assert rows_of(service, sender.campaign_id) == expected


@pytest.mark.parametrize("actor", ["Shard", "Writer"])
def test_a_killed_actor_comes_back_by_itself(service: Service, actor: str) -> None:
    """
    Whoever sends meanwhile waits, or gets a 503 with an integer Retry-After; what was
    acknowledged before, during and after is one row each.
    """
    campaigns = [f"killed-{actor}-{n}" for n in range(6)]  # on several partitions
    with sending(service, *campaigns) as senders:
        before = [len(sender.acknowledged) for sender in senders]
        os.kill(service.actor_pid(actor), signal.SIGKILL)
        eventually(
            lambda: all(len(s.acknowledged) > n + 5 for s, n in zip(senders, before, strict=True)),
            BACK_WITHIN_S,
            "events are taken again",
        )
        if actor == "Writer":
            last = senders[0].acknowledged[-1]
            eventually(lambda: last in rows_of(service, campaigns[0]), BACK_WITHIN_S, "rows again")
    for sender in senders:
        for _, answer in sender.answers:
            assert answer.status in (200, 202, 503)
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
        assert_each_is_one_row(service, sender)


def test_a_killed_replica_loses_nothing_that_it_acknowledged(service: Service) -> None:
    """Its connections break; whoever sends again is recognised."""
    with sending_through_errors(service, "killed-replica") as sender:
        os.kill(service.actor_pid("ServeReplica:tracking:Ingress"), signal.SIGKILL)
        count = len(sender.acknowledged)
        eventually(lambda: len(sender.acknowledged) > count + 20, 20, "events are taken again")
    assert_each_is_one_row(service, sender)


def test_a_killed_supervisor_changes_nothing_for_events(service: Service) -> None:
    """It stands beside the path: events go on, and a successor takes its place."""
    before = service.actor_pid("ServeReplica:tracking:Supervisor")
    with sending(service, "killed-supervisor") as (sender,):
        os.kill(before, signal.SIGKILL)
        count = len(sender.acknowledged)
        eventually(lambda: len(sender.acknowledged) > count + 50, 10, "events go on")

        def healthy_again() -> bool:
            answer = service.call("GET", "/health/tracking")
            return answer.body["overall"] == "healthy"

        eventually(healthy_again, 30, "a new supervisor reports")
    assert all(answer.status == 202 for _, answer in sender.answers)
    assert_each_is_one_row(service, sender)


@contextmanager
def sending_through_errors(service: Service, campaign_id: str) -> Iterator[Sender]:
    """A sender that takes a broken connection for what it is: no answer, so send again."""

    class Stubborn(Sender):
        def run(self) -> None:
            while not self._stop_asked.is_set():
                try:
                    super().run()
                except OSError:
                    continue

    sender = Stubborn(service, campaign_id)
    sender.start()
    try:
        eventually(lambda: len(sender.acknowledged) > 20, 20, "events flow")
        yield sender
    finally:
        sender.finish()
