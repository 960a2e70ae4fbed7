"""How long the keeper waits before it starts the whole again."""

from __future__ import annotations

from ray_tracking.cli.keeper import Pauses


def test_a_loss_that_comes_again_quickly_is_answered_more_slowly() -> None:
    """At once, then after 1 s, and never slower than every 30 s."""
    pauses = Pauses()
    assert [pauses.after(5.0) for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_minute_of_health_forgives_all() -> None:
    pauses = Pauses()
    for _ in range(5):
        pauses.after(5.0)

    assert pauses.after(60.0) == 0.0
    assert pauses.after(5.0) == 1.0
