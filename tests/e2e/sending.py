"""Senders that remember what was acknowledged, to compare it with the rows."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from tests.e2e.service import Answer, Service, eventually


class Sender(threading.Thread):
    """
    Sends events one after the other, each until it is acknowledged, and remembers.

    Args:
        service: Whom.
        campaign_id: Of all its events.
        keep_alive: Whether one connection is for more than one request.
    """

    def __init__(self, service: Service, campaign_id: str, *, keep_alive: bool = False) -> None:
        super().__init__(daemon=True)
        self.campaign_id = campaign_id
        self.acknowledged: list[str] = []
        self.answers: list[tuple[float, Answer]] = []
        #: What came instead of an answer.
        self.broken: list[Exception] = []
        self._connection = HTTPConnection("127.0.0.1", service.port, timeout=15)
        self._headers = {"Content-Type": "application/json"}
        if not keep_alive:
            self._headers["Connection"] = "close"
        self._stop_asked = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            event_id = f"{self.campaign_id}-{number}"
            try:
                answer = self._send(event_id)
            except (OSError, HTTPException) as error:
                self.broken.append(error)
                self._connection.close()
                self._stop_asked.wait(0.05)
                continue
            self.answers.append((time.monotonic(), answer))
            if answer.status in (200, 202):
                self.acknowledged.append(event_id)
                number += 1
            else:
                self._stop_asked.wait(0.05)
        self._connection.close()

    def finish(self) -> None:
        self._stop_asked.set()
        self.join()

    def _send(self, event_id: str) -> Answer:
        data = {
            "campaignId": self.campaign_id,
            "leadId": event_id,
            "emailId": "e1",
            "eventId": event_id,
            "timestamp": "2026-11-01T09:00:00Z",
        }
        body = json.dumps({"eventType": "EMAIL_OPEN", "eventData": data})
        self._connection.request("POST", "/events", body, self._headers)
        answer = self._connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()), dict(answer.getheaders()))


@contextmanager
def running(senders: list[Sender]) -> Iterator[list[Sender]]:
    """Senders that have begun when the block begins, and end with it."""
    for sender in senders:
        sender.start()
    try:
        eventually(lambda: all(len(s.acknowledged) > 20 for s in senders), 20, "events flow")
        yield senders
    finally:
        for sender in senders:
            sender.finish()


@contextmanager
def sending(service: Service, *campaign_ids: str) -> Iterator[list[Sender]]:
    """One sender for each campaign. No connection may break."""
    with running([Sender(service, campaign_id) for campaign_id in campaign_ids]) as senders:
        yield senders
    assert [sender.broken for sender in senders] == [[] for _ in senders]


@contextmanager
def sending_through_errors(service: Service, campaign_id: str) -> Iterator[Sender]:
    """A sender that takes a broken connection for what it is: no answer, so send again."""
    with running([Sender(service, campaign_id)]) as (sender,):
        yield sender


def rows_of(service: Service, campaign_id: str) -> Counter[str]:
    rows = service.sql("SELECT client_event_id FROM events WHERE campaign_id = $1", campaign_id)
    return Counter(row["client_event_id"] for row in rows)


def assert_clear_answers(sender: Sender) -> None:
    """Taken, known already, or come again in so many seconds."""
    for _, answer in sender.answers:
        assert answer.status in (200, 202, 503)
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) >= 1


def assert_each_is_one_row(service: Service, sender: Sender) -> None:
    expected = Counter(dict.fromkeys(sender.acknowledged, 1))
    eventually(
        lambda: not expected - rows_of(service, sender.campaign_id),
        15,
        "every acknowledged event is a row",
    )
    assert rows_of(service, sender.campaign_id) == expected
