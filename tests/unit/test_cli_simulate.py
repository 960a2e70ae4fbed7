"""`ray-tracking simulate`: when something is sent again, and what is said about it."""

from __future__ import annotations

import errno
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest
from click.testing import CliRunner

from ray_tracking import cli
from ray_tracking.cli.simulate_player import Player
from ray_tracking.cli.simulate_sender import AccessRefused, Sender
from ray_tracking.cli.simulate_tally import Tally
from ray_tracking.events import EventType
from ray_tracking.sources.simulation import Planned

EVENTS = [Planned("events", EventType.EMAIL_OPEN, {"eventId": str(n)}) for n in range(5)]
BATCHED = [event._replace(via="batch") for event in EVENTS]


class FakeSender:
    """Answers each try as the test says: None, seconds to wait, or an error."""

    def __init__(self, tally: Tally, answer: Callable[[int], float | None]) -> None:
        self.tally = tally
        self.answer = answer
        self.tries: Counter[str] = Counter()
        self.batches: list[int] = []

    async def single(self, planned: Planned, begun_s: float) -> float | None:
        event_id = planned.data["eventId"]
        self.tries[event_id] += 1
        wait_s = self.answer(self.tries[event_id])
        if wait_s is None:
            self.tally.accepted += 1
        return wait_s

    async def batch(self, items: list[Planned], begun_s: float) -> float | None:
        """The first item is taken at each try, the others have to wait."""
        self.batches.append(len(items))
        items.pop(0)
        self.tally.accepted += 1
        return 0.001 if items else None

    async def close(self) -> None:
        pass


async def play(
    plan: list[Planned], answer: Callable[[int], float | None], retry_for_s: float = 5
) -> tuple[Tally, FakeSender]:
    tally = Tally()
    sender = FakeSender(tally, answer)
    player = Player(cast(Sender, sender), tally, retry_for_s=retry_for_s, batch_size=5)
    await player.play(plan, 1000, math.inf)
    return tally, sender


async def test_what_is_refused_for_now_is_sent_again_until_it_is_taken() -> None:
    tally, sender = await play(EVENTS, lambda attempt: 0.001 if attempt < 3 else None)

    assert tally.accepted == tally.settled == tally.total == 5
    assert set(sender.tries.values()) == {3}


async def test_no_answer_is_a_reason_to_try_again() -> None:
    def answer(attempt: int) -> float | None:
        if attempt == 1:
            raise ConnectionResetError("gone")
        return None

    tally, _ = await play(EVENTS, answer)

    assert (tally.accepted, tally.failed) == (5, 5)
    assert tally.reasons == ["ConnectionResetError: gone"]


@pytest.mark.parametrize("retry_for_s", [0, 5])
async def test_nothing_is_sent_when_the_service_could_not_recognise_it(retry_for_s: float) -> None:
    tally, sender = await play(EVENTS, lambda _: 60.0, retry_for_s)

    assert (tally.accepted, tally.given_up) == (0, 5)
    assert set(sender.tries.values()) == {1}


async def test_of_a_batch_only_what_is_open_is_sent_again() -> None:
    tally, sender = await play(BATCHED, lambda _: None)

    assert sender.batches == [5, 4, 3, 2, 1]
    assert tally.accepted == tally.total == 5


async def test_a_refused_key_ends_it_at_once() -> None:
    def answer(attempt: int) -> float | None:
        raise AccessRefused("an API key is needed")

    started_s = time.monotonic()
    with pytest.raises(AccessRefused, match="key"):
        await play(EVENTS * 10_000, answer)
    assert time.monotonic() - started_s < 5


def test_the_summary_adds_up() -> None:
    tally = Tally(accepted=3, duplicates=1)
    tally.started.update({(EventType.EMAIL_OPEN, "events"): 4, (EventType.EMAIL_OPEN, "batch"): 1})
    tally.answered("events", 0.0123)
    lines = dict[str, Any](
        (" ".join(line.split()[:-1]), line.split()[-1])
        for line in tally.summary(2.0, 10).splitlines()
    )

    assert lines["in all"] == "5"
    assert lines["accepted"] == "3"
    assert lines["given up"] == "1", "what was never settled is not left out"
    assert lines["events 12.3"] == "12.3"


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"TRACKING_PORT": "9001"}, "http://127.0.0.1:9001"),
        ({"TRACKING_BASE_URL": "https://t.example.com"}, "https://t.example.com"),
    ],
)
def test_the_service_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], where: str
) -> None:
    """As for every other command that asks one."""
    for name in ("TRACKING_PORT", "TRACKING_BASE_URL", "TRACKING_HOST"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    monkeypatch.setattr(aiohttp.ClientSession, "get", refuse)
    result = CliRunner().invoke(cli.main, ["simulate"], env=env)

    assert result.exit_code == 2
    assert f"nothing answers at {where} " in result.stderr


def test_where_nothing_answers_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)")

    monkeypatch.setattr(aiohttp.ClientSession, "get", refuse)
    result = CliRunner().invoke(cli.main, ["simulate", "--url", "http://127.0.0.1:9/"])

    assert result.exit_code == 2
    assert "nothing answers at http://127.0.0.1:9 (Connection refused)" in result.stderr
    assert "Traceback" not in result.output
