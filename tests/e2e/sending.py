"""Senders that remember what was acknowledged, to compare it with the rows."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.e2e.service import Answer, Service, eventually


class Sender(threading.Thread):
    """Sends events one after the other, each until it is acknowledged, and remembers."""

    def __init__(self, service: Service, campaign_id: str) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.campaign_id = campaign_id
        self.acknowledged: list[str] = []
        self.answers: list[tuple[float, Answer]] = []
        self._stop_asked = threading.Event()
        self._number = 0

    def run(self) -> None:
        while not self._stop_asked.is_set():
            event_id = f"{self.campaign_id}-{self._number}"
            answer = send_open(self.service, self.campaign_id, event_id)
            self.answers.append((time.monotonic(), answer))
            if answer.status in (200, 202):
                self.acknowledged.append(event_id)
                self._number += 1
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


@contextmanager
def sending_through_errors(service: Service, campaign_id: str) -> Iterator[Sender]:
    """A sender that takes a broken connection for what it is: no answer, so send again."""

    class Stubborn(Sender):
        def run(self) -> None:
            while not self._stop_asked.is_set():
                try:
                    super().run()
                except (OSError, HTTPException):
                    self._stop_asked.wait(0.05)

    sender = Stubborn(service, campaign_id)
    sender.start()
    try:
        eventually(lambda: len(sender.acknowledged) > 20, 20, "events flow")
        yield sender
    finally:
        sender.finish()
