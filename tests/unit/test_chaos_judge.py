"""The judge of the crash suite sees each kind of broken promise, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.chaos.history import Ack, History, Letter, Loss, Place, Row, Sent
from tests.chaos.judge import judge

LANE = "normal"


def sent(key: str, turn: int = 0, index: int = 0, **more: object) -> Sent:
    """An event of one client that sends one after the other, accepted at once."""
    values: dict[str, object] = {"attempts": 1, "acks": [Ack(1.0)], **more}
    return Sent(key, "spring", "client", turn, index, **values)  # type: ignore[arg-type]


def row(key: str, seq: int, index: int = 0, *, event_id: str | None = None) -> Row:
    return Row(key, "spring", event_id or f"id of {key} at {seq}", place(seq, index))


def place(seq: int, index: int = 0) -> Place:
    return Place(3, LANE, 100, seq, index)


def found(
    events: Sequence[Sent], rows: Sequence[Row], letters: Sequence[Letter] = (), **more: object
) -> list[str]:
    """The promises that the judge finds broken."""
    history = History({event.key: event for event in events}, **more)  # type: ignore[arg-type]
    return [violation.promise for violation in judge(history, rows, letters)]


def test_rows_and_letters_that_are_as_they_should_be_are_fine() -> None:
    """Acknowledged events are rows or letters; others may be rows, or not."""
    events = [
        sent("a", 0, acks=[Ack(1, place=place(2)), Ack(2, duplicate=True)], attempts=2),
        sent("b", 1),
        sent("poison", 2),
        sent("nobody knows", 3, acks=[]),
        sent("never arrived", 4, acks=[]),
    ]
    rows = [row("a", 2), row("b", 2, 1), row("nobody knows", 5)]
    assert found(events, rows, [Letter("poison", "p", "dead")]) == []


def test_an_acknowledged_event_without_a_row_is_seen() -> None:
    assert found([sent("a"), sent("b", 1)], [row("a", 2)]) == ["conservation"]


def test_a_letter_that_was_sent_again_does_not_stand_for_its_row() -> None:
    assert found([sent("a")], [], [Letter("a", "x", "redriven")]) == ["conservation"]


def test_an_event_that_is_there_twice_is_seen() -> None:
    assert found([sent("a")], [row("a", 2), row("a", 3)]) == ["uniqueness"]


def test_a_row_beside_a_letter_of_the_same_event_is_seen() -> None:
    letter = Letter("a", "another", "dead")
    assert found([sent("a")], [row("a", 2)], [letter]) == ["uniqueness"]


def test_an_event_that_nobody_acknowledged_must_not_be_there_twice_either() -> None:
    assert found([sent("a", acks=[])], [row("a", 2), row("a", 3)]) == ["uniqueness"]


def test_a_row_that_nobody_sent_is_seen() -> None:
    assert found([], [row("a", 2)]) == ["uniqueness"]


def test_two_rows_with_one_event_id_or_one_place_are_seen() -> None:
    events = [sent("a", 0), sent("b", 1)]
    assert found(events, [row("a", 2, event_id="x"), row("b", 3, event_id="x")]) == ["uniqueness"]
    assert found(events, [row("a", 2), row("b", 2)]) == ["uniqueness"]


def test_a_row_at_another_place_than_was_said_is_seen() -> None:
    events = [sent("a", acks=[Ack(1, place=place(2, 0))])]
    assert found(events, [row("a", 2, 1)]) == ["order"]


def test_a_later_request_that_stands_before_an_earlier_one_is_seen() -> None:
    """Also where the one between them is in its place."""
    events = [sent("a", 0), sent("b", 1), sent("c", 2)]
    assert found(events, [row("a", 2), row("b", 3), row("c", 4)]) == []
    assert found(events, [row("a", 4), row("b", 5), row("c", 3)]) == ["order"]


def test_items_of_one_request_stand_in_their_order() -> None:
    """Unless some of them had to be sent again."""
    rows = [row("a", 2, 1), row("b", 2, 0)]
    assert found([sent("a", 0, 0), sent("b", 0, 1)], rows) == ["order"]
    assert found([sent("a", 0, 0, attempts=2), sent("b", 0, 1)], rows) == []


@pytest.mark.parametrize(
    "more",
    [{"acks": [Ack(1, fallback=True)]}, {"in_turn": False}, {"acks": []}],
    ids=["spooled", "concurrent", "unacknowledged"],
)
def test_what_was_promised_no_order_may_stand_anywhere(more: dict[str, object]) -> None:
    assert found([sent("a", 0, **more), sent("b", 1)], [row("a", 9), row("b", 3)]) == []


def test_a_duplicate_of_what_was_never_sent_before_is_seen() -> None:
    assert found([sent("a", acks=[Ack(1, duplicate=True)])], [row("a", 2)]) == ["honesty"]
    again = sent("a", acks=[Ack(1, duplicate=True)], attempts=2)
    assert found([again], [row("a", 2)]) == []


def test_improper_answers_and_stuck_faults_are_passed_on() -> None:
    assert found([], [], improper=["500"], stuck=["shard"]) == ["honesty", "liveness"]


def test_a_loss_excuses_what_was_acknowledged_before_it_and_nothing_else() -> None:
    """An operator accepted that it is gone; what came later must be there."""
    losses = [Loss(5.0, 10.0)]
    before, after = sent("a", acks=[Ack(7.0)]), sent("b", acks=[Ack(11.0)])
    assert found([before], [], losses=losses) == []
    assert found([after], [], losses=losses) == ["conservation"]


def test_a_loss_excuses_the_second_row_of_an_event_sent_before_and_after_it() -> None:
    """Whoever remembered the first was gone."""
    losses = [Loss(5.0, 10.0)]
    rows = [row("a", 2), row("a", 3)]
    around = sent("a", first_s=4.0, last_s=12.0, attempts=2)
    assert found([around], rows, losses=losses) == []
    late = sent("a", first_s=11.0, last_s=12.0, attempts=2)
    assert found([late], rows, losses=losses) == ["uniqueness"]


def test_figures_that_are_not_what_the_rows_say_are_found() -> None:
    violations = judge(History({}), [], [], ["c shows 1, and its rows say 2"])

    assert [violation.promise for violation in violations] == ["counts"]
