"""When it is asked again, and when it is given up."""

from __future__ import annotations

import pytest

from ray_tracking.api.attempts import Failed, Reply, Request, Response, ask, read
from ray_tracking.errors import Unreachable
from tests.support.plans import Run

ASKED = Request("POST", "/events", b"{}")
BUSY = Reply(503, {"success": False}, retry_after_s=2)
TAKEN = Reply(202, {"success": True})


def test_what_lasts_is_not_asked_again() -> None:
    refused = Reply(422, {"success": False})
    for answer in (TAKEN, refused):
        run = Run(answer)
        assert run.of(ask(ASKED, run.patience())) is answer
        assert len(run.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_is_for_now_is_asked_again_with_the_same_bytes(status: int) -> None:
    run = Run(Reply(status, {}), Failed("nobody there"), TAKEN)
    assert run.of(ask(ASKED, run.patience())) is TAKEN
    assert [request.body for request in run.asked] == [ASKED.body] * 3


@pytest.mark.parametrize("draws", [0.0, 0.999])
def test_never_sooner_than_the_service_said(draws: float) -> None:
    run = Run(BUSY, BUSY, TAKEN, draws=draws)
    run.of(ask(ASKED, run.patience()))
    assert all(pause >= 2 for pause in run.pauses)
    assert (max(run.pauses) > 2) == bool(draws)  # and not all at the same moment


def test_pauses_grow_with_full_jitter_where_nothing_was_said() -> None:
    run = Run(*[Failed("away")] * 4, TAKEN, draws=1.0)
    run.of(ask(ASKED, run.patience()))
    assert run.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])


@pytest.mark.parametrize("answer", [BUSY, Failed("away")])
def test_all_attempts_begin_within_the_time_for_them(answer: Reply | Failed) -> None:
    run = Run(answer)
    try:
        run.of(ask(ASKED, run.patience(10.0)))
    except Unreachable:
        assert isinstance(answer, Failed)
    assert run.now_s < 110.0
    assert len(run.asked) > 2


def test_an_attempt_may_not_outlast_the_time_for_all() -> None:
    run = Run(Failed("slow"), takes_s=4.0, draws=0.0)
    with pytest.raises(Unreachable, match="slow"):
        run.of(ask(ASKED, run.patience(10.0)))
    assert [request.within_s for request in run.asked] == [10.0, 6.0, 2.0]


def test_the_last_answer_is_the_result_and_no_answer_is_an_error() -> None:
    run = Run(BUSY)
    assert run.of(ask(ASKED, run.patience(3.0))) is BUSY
    run = Run(BUSY, Failed("away"))
    with pytest.raises(Unreachable, match="away"):
        run.of(ask(ASKED, run.patience(3.0)))


def test_no_time_means_one_attempt() -> None:
    run = Run(BUSY)
    assert run.of(ask(ASKED, run.patience(0.0))) is BUSY
    assert run.pauses == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [({"Retry-After": "3"}, 3), ({"retry-after": "0"}, 0), ({}, None),
     ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None)],
)  # fmt: skip
def test_retry_after_is_read_in_seconds(header: dict[str, str], seconds: int | None) -> None:
    reply = read(Response(503, header, b"{}"))
    assert isinstance(reply, Reply)
    assert reply.retry_after_s == seconds


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[]"])
def test_an_answer_of_somebody_else_is_none(body: bytes) -> None:
    assert isinstance(read(Response(502, {}, body)), Failed)
