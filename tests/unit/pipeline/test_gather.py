"""Calls to a shard: what goes in comes out, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.gather import (
    GatherPolicy,
    Outcome,
    Verdict,
    pack,
    pack_outcomes,
    unpack,
    unpack_outcomes,
)
from ray_tracking.pipeline.route import Submission
from tests.unit.pipeline.samples import submission

submissions = st.builds(
    Submission,
    st.integers(0, 2**16 - 1),
    st.text(max_size=5),
    st.integers(0, 2),
    st.integers(0, 2**16 - 1),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=20),
)
positions = st.tuples(*[st.integers(0, 2**40)] * 5)
outcomes = st.builds(
    Outcome,
    st.sampled_from(Verdict),
    st.none() | positions,
    st.none() | st.binary(min_size=16, max_size=16),
    st.floats(0, 1e6),
)


@given(st.lists(submissions, max_size=8))
def test_submissions_come_out_as_they_went_in(batch: list[Submission]) -> None:
    assert unpack(pack(batch)) == batch


@given(st.lists(outcomes, max_size=8))
def test_outcomes_come_back_in_the_order_of_their_submissions(batch: list[Outcome]) -> None:
    """One each, and a verdict is not just its number: the answer is chosen by it."""
    back = unpack_outcomes(pack_outcomes(batch))

    assert back == batch
    assert all(type(outcome.verdict) is Verdict for outcome in back)


def test_a_thousand_events_of_a_campaign_name_it_once() -> None:
    blob = pack([submission(n, key="a-long-campaign-id") for n in range(1000)])

    assert blob.count(b"a-long-campaign-id") == 1


def test_ten_thousand_campaigns_fit_in_one_call() -> None:
    batch = [submission(n, key=f"c{n}") for n in range(10_000)]

    assert unpack(pack(batch)) == batch


def test_a_call_waits_for_company_but_not_after_a_pause_nor_when_it_is_full() -> None:
    policy = GatherPolicy(max_call_events=1000, linger_per_event_s=0.001, linger_s=0.005)

    assert policy.wait_s(0.0, 0, 1) == 0
    assert policy.wait_s(0.0, 3, 1) == 0.003
    assert policy.wait_s(0.0, 900, 1) == 0.005
    assert policy.wait_s(0.004, 900, 999) < 0.0011
    assert policy.wait_s(0.005, 900, 1) == policy.wait_s(60.0, 900, 1) == 0
    assert policy.wait_s(0.0, 900, 1000) == 0
