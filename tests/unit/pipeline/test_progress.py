from __future__ import annotations

from ray_tracking.pipeline.progress import Progress


def test_what_moves_or_has_nothing_to_do_does_not_stand_still() -> None:
    progress = Progress()
    assert progress.stalled_ms(10, 0, 0) == 0
    assert progress.stalled_ms(10, 1, 5000) == 0
    assert progress.stalled_ms(0, 1, 10_000) == 0
    assert progress.stalled_ms(0, 1, 90_000) == 0


def test_after_a_long_rest_the_first_event_has_not_waited_long() -> None:
    progress = Progress()
    progress.stalled_ms(0, 1, 0)
    progress.stalled_ms(0, 1, 600_000)
    assert progress.stalled_ms(1, 1, 600_500) == 500


def test_what_has_work_and_does_none_stands_still_until_it_does() -> None:
    progress = Progress()
    progress.stalled_ms(5, 7, 0)
    assert progress.stalled_ms(5, 7, 12_000) == 12_000
    assert progress.stalled_ms(9, 7, 13_000) == 13_000
    assert progress.stalled_ms(9, 8, 14_000) == 0
