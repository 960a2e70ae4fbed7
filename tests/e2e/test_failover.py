"""Parts that are killed come back by themselves, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.sending import (
    assert_clear_answers,
    assert_each_is_one_row,
    rows_of,
    sending,
    sending_through_errors,
)
from tests.e2e.service import Service, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

#: It takes about 2 s; `make bench BENCH=failover` has the figure. Here a busy machine may be slow.
BACK_WITHIN_S = 15.0


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
        assert_clear_answers(sender)
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
    # 429: on a fast machine the sender is over its campaign's rate.
    assert [answer for _, answer in sender.answers if answer.status not in (202, 429)] == []
    assert_each_is_one_row(service, sender)
