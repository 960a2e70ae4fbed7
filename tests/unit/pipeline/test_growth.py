from __future__ import annotations

from ray_tracking.pipeline.growth import Growth


def test_counts_of_several_add_up_and_grow_with_each() -> None:
    growth = Growth(["n"])
    growth.take("a", {"n": 5}, 0)
    growth.take("b", {"n": 2, "more": 9}, 0)
    growth.take("a", {"n": 8}, 1)
    assert growth.totals == {"n": 10}


def test_one_that_begins_anew_loses_nothing() -> None:
    growth = Growth(["n"])
    growth.take("writer-0", {"n": 8}, 0)
    growth.take("writer-0", {"n": 1}, 1)
    growth.take("writer-0", {"n": 3}, 2)
    assert growth.totals == {"n": 11}


def test_one_that_was_silent_for_a_while_is_not_counted_twice() -> None:
    growth = Growth(["n"])
    growth.take("a", {"n": 8}, 0)
    growth.forget(60)
    growth.take("a", {"n": 9}, 60)
    assert growth.totals == {"n": 9}


def test_what_was_counted_before_our_time_is_left_out_where_that_is_asked() -> None:
    growth = Growth(["n"])
    growth.take("a", {"n": 100}, 0, is_new=False)
    growth.take("a", {"n": 103}, 1, is_new=False)
    assert growth.totals == {"n": 3}


def test_those_that_are_gone_for_good_take_no_memory() -> None:
    growth = Growth(["n"])
    growth.take("a", {"n": 8}, 0)
    growth.forget(1000)
    assert (growth.totals, growth._last) == ({"n": 8}, {})
