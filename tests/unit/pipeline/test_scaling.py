"""How many replicas are wanted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.scaling import ReplicaLimits, ReplicaLoad, wanted_replicas

LIMITS = ReplicaLimits(requests_per_s=1000, events_per_s=5000, sockets=100, loop_lag_ms=50)
IDLE = ReplicaLoad()
FULL = ReplicaLoad(requests_per_s=900)

loads = st.builds(
    ReplicaLoad,
    st.floats(0, 5000),
    st.floats(0, 50_000),
    st.floats(0, 500),
    st.floats(0, 500),
    st.floats(0, 1),
)


def wanted(*loads: ReplicaLoad, current: int | None = None) -> float:
    return wanted_replicas(loads, LIMITS, current=len(loads) if current is None else current)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([IDLE, IDLE], 0),
        ([FULL], 0.9),
        ([ReplicaLoad(requests_per_s=2500)], 2.5),
        ([ReplicaLoad(events_per_s=12_500), IDLE], 2.5),
        ([ReplicaLoad(sockets=250), ReplicaLoad(sockets=50)], 3),
        ([ReplicaLoad(loop_lag_ms=75), ReplicaLoad(loop_lag_ms=75)], 3),
        ([ReplicaLoad(loop_lag_ms=10_000)], 2),
        ([ReplicaLoad(loop_lag_ms=49), IDLE], 0),
        ([ReplicaLoad(backlog=0.5), IDLE, IDLE], 3),
    ],
)
def test_work_is_shared_among_as_many_as_it_takes(seen: list[ReplicaLoad], expected: float) -> None:
    assert wanted(*seen) == pytest.approx(expected)


def test_nobody_goes_and_nobody_comes_where_nothing_is_known() -> None:
    assert wanted(current=3) == 3


def test_one_that_has_just_begun_counts_as_the_others() -> None:
    """Otherwise the third would be sent away before it has said a word."""
    assert wanted(FULL, FULL, current=3) == pytest.approx(2.7)


@given(st.lists(loads, min_size=1, max_size=6))
def test_more_work_never_wants_fewer(seen: list[ReplicaLoad]) -> None:
    before = wanted(*seen)
    more = ReplicaLoad(
        seen[0].requests_per_s + 100,
        seen[0].events_per_s + 100,
        seen[0].sockets + 1,
        seen[0].loop_lag_ms + 1,
        seen[0].backlog,
    )
    assert wanted(more, *seen[1:]) >= before


@given(st.lists(loads, min_size=1, max_size=6))
def test_with_as_many_as_are_wanted_the_work_is_done_with_ease(seen: list[ReplicaLoad]) -> None:
    count = max(1, -(-wanted(*seen) // 1))
    assert sum(load.requests_per_s for load in seen) / count <= LIMITS.requests_per_s * 1.001
    assert sum(load.events_per_s for load in seen) / count <= LIMITS.events_per_s * 1.001
    assert sum(load.sockets for load in seen) / count <= LIMITS.sockets * 1.001
