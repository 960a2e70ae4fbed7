"""The dedup window: exact, bounded, and honest about what it forgot too early."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.route import Identity, Submission, received_ms
from ray_tracking.pipeline.window import BUCKETS_PER_WINDOW, Seen, Window, WindowPolicy
from tests.unit.pipeline.samples import NOW_MS, submission

POLICY = WindowPolicy(dedup_window_ms=800, idempotency_window_ms=2400)
ENTRY = (3, 1, 7, 2)


@dataclass
class AllEvents:
    """What a window promises, kept the simplest way: every event for ever."""

    policy: WindowPolicy

    def __post_init__(self) -> None:
        self.events: list[Submission] = []

    def repeated(self, new: Submission, identity: Identity) -> set[bytes]:
        """The events of which this one is a duplicate."""
        given = identity is Identity.GIVEN
        window_ms = self.policy.idempotency_window_ms if given else self.policy.dedup_window_ms
        return {
            old.event_id
            for old in self.events
            if old.digest == new.digest
            and abs(received_ms(new.event_id) - received_ms(old.event_id)) < window_ms
            and (
                identity is not Identity.TIMED
                or abs(new.occurred_us - old.occurred_us) < self.policy.dedup_window_ms * 1000
            )
        }


arrivals = st.lists(
    st.tuples(
        st.integers(0, 5),  # which digest
        st.integers(0, 500) | st.sampled_from([799, 800, 801, 2399, 2400]),  # ms since the last
        st.integers(0, 3) | st.sampled_from([799_999, 800_000, 2_000_000]),  # its own time, us
        st.booleans(),  # is housekeeping due?
    ),
    max_size=40,
)


@given(arrivals)
def test_the_window_knows_exactly_what_a_list_of_all_events_knows(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    """Two digests for each kind of identity; times at, below and above both windows."""
    window, model = Window(POLICY), AllEvents(POLICY)
    now_ms = NOW_MS
    for n, (digest, later_ms, occurred_us, expire) in enumerate(steps):
        now_ms += later_ms
        if expire:
            window.expire(now_ms)
        identity = Identity(digest % 3)
        new = submission(n, at_ms=now_ms, digest=digest, identity=identity, occurred_us=occurred_us)
        seen, expected = window.find(new), model.repeated(new, identity)

        assert (seen is not None) == bool(expected)
        if seen is not None:
            assert seen.event_id in expected
        else:
            window.remember([new], (3, 1, 7, n))
            model.events.append(new)
    assert window.evicted_early == 0


def test_a_duplicate_gets_id_and_place_of_its_first() -> None:
    window = Window(POLICY)
    for n in range(0, 20, 5):
        window.remember([submission(n + i) for i in range(5)], (3, 1, 7, 2 + n // 5))

    for n in range(20):
        first = submission(n)
        seen = window.find(submission(100 + n, digest=n))
        assert seen == Seen(first.event_id, (3, 1, 7, 2 + n // 5, n % 5))


@pytest.mark.parametrize(
    ("identity", "window_ms"),
    [(Identity.TIMED, 800), (Identity.EXACT, 800), (Identity.GIVEN, 2400)],
)
def test_a_window_is_over_to_the_millisecond(identity: Identity, window_ms: int) -> None:
    window = Window(POLICY)
    window.remember([submission(1, digest=9, identity=identity)], ENTRY)

    inside = submission(2, digest=9, identity=identity, at_ms=NOW_MS + window_ms - 1)
    outside = submission(3, digest=9, identity=identity, at_ms=NOW_MS + window_ms)
    assert window.find(inside)
    assert not window.find(outside)


def test_a_history_of_opens_on_different_days_is_not_one_open() -> None:
    """They arrive in one second; their own times tell them apart."""
    window = Window(POLICY)
    day_us = 86_400_000_000
    for day in range(5):
        opened = submission(day, digest=9, identity=Identity.TIMED, occurred_us=day * day_us)
        assert window.find(opened) is None
        window.remember([opened], (3, 1, 7, day))

    for day in range(5):
        again = submission(
            50 + day, digest=9, identity=Identity.TIMED, occurred_us=day * day_us + 799_999
        )
        seen = window.find(again)
        assert seen is not None
        assert seen.position[3] == day


def test_an_event_that_comes_out_of_order_is_found_on_both_sides() -> None:
    """Two replicas: the one whose event was received first may be the slower."""
    window = Window(POLICY)
    window.remember([submission(1, digest=9)], ENTRY)

    assert window.find(submission(2, digest=9, at_ms=NOW_MS - 799))
    assert not window.find(submission(2, digest=9, at_ms=NOW_MS - 800))


def test_what_is_over_costs_no_memory() -> None:
    window = Window(POLICY)
    for n in range(100):
        window.remember([submission(n, at_ms=NOW_MS + n)], ENTRY)
    window.expire(NOW_MS + 2399)
    assert len(window) == 100

    window.expire(
        NOW_MS + 100 + POLICY.longest_ms * (BUCKETS_PER_WINDOW + 2) // BUCKETS_PER_WINDOW + 1
    )
    assert len(window) == 0
    assert window.evicted_early == 0
    assert window.effective_ms(NOW_MS + 10_000) == POLICY.longest_ms


def test_forgetting_too_early_is_counted_and_the_real_window_told() -> None:
    """Never silent: health shows both."""
    window = Window(WindowPolicy(800, 800, max_ids=10))
    for n in range(30):
        window.remember([submission(n, at_ms=NOW_MS + 20 * n)], ENTRY)
    now_ms = NOW_MS + 20 * 29
    effective_ms = window.effective_ms(now_ms)

    assert len(window) <= 10
    assert window.evicted_early == 30 - len(window)
    assert 0 < effective_ms < 250
    for n in range(30):
        age_ms = now_ms - (NOW_MS + 20 * n)
        if age_ms < effective_ms:
            assert window.find(submission(99, digest=n, at_ms=now_ms))


def test_the_window_is_whole_again_when_the_eviction_is_over() -> None:
    """A burst an hour ago says nothing of the window now, nor does a quiet time."""
    window = Window(WindowPolicy(800, 800, max_ids=10))
    for n in range(30):
        window.remember([submission(n, at_ms=NOW_MS + 20 * n)], ENTRY)
    later_ms = NOW_MS + 3_600_000
    window.expire(later_ms)
    window.remember([submission(99, at_ms=later_ms)], ENTRY)

    assert window.effective_ms(later_ms) == 800


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 8))
def test_the_effective_window_is_never_longer_than_the_truth(
    steps: list[int], max_ids: int
) -> None:
    """Whatever was received that short ago is still known."""
    window = Window(WindowPolicy(800, 800, max_ids))
    now_ms = NOW_MS
    received = []
    for n, later_ms in enumerate(steps):
        now_ms += later_ms
        window.remember([submission(n, at_ms=now_ms)], ENTRY)
        received.append(now_ms)
        horizon_ms = now_ms - window.effective_ms(now_ms)
        for old, at_ms in enumerate(received):
            if at_ms > horizon_ms:
                assert window.find(submission(999, digest=old, at_ms=now_ms))


def test_one_bucket_may_hold_more_than_the_most() -> None:
    """Forgetting what came this instant would be no window at all."""
    window = Window(WindowPolicy(800, 800, max_ids=5))
    for n in range(20):
        window.remember([submission(n)], ENTRY)

    assert len(window) == 20
    assert window.evicted_early == 0


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(-900, 900)), max_size=6), max_size=8)
)
def test_an_entry_is_remembered_as_its_events_one_by_one(
    entries: list[list[tuple[int, int]]],
) -> None:
    """Also where it holds a digest twice, or events of different buckets."""
    whole, single = Window(POLICY), Window(POLICY)
    numbers = count()
    for seq, entry in enumerate(entries):
        submissions = [
            submission(next(numbers), digest=digest, at_ms=NOW_MS + at_ms, identity=Identity.EXACT)
            for digest, at_ms in entry
        ]
        whole.remember(submissions, (3, 1, 7, seq))
        for each in submissions:
            single.remember([each], (3, 1, 7, seq))
    assert len(whole) == len(single)
    for digest in range(5):
        for at_ms in range(-1700, 1700, 100):
            asked = submission(99, digest=digest, at_ms=NOW_MS + at_ms, identity=Identity.EXACT)
            found, expected = whole.find(asked), single.find(asked)
            assert (found and found.event_id) == (expected and expected.event_id)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 400), st.integers(50, 5000)), max_size=40)
)
def test_a_window_that_changes_forgets_nothing_within_the_shortest_of_late(
    steps: list[tuple[int, int, int]],
) -> None:
    """And knows nothing that the window of the moment does not reach."""
    window, now_ms = Window(WindowPolicy(1000, 1000)), NOW_MS
    first: dict[int, int] = {}
    #: Since each was remembered.
    shortest: dict[int, int] = {}
    length = 1000
    for n, (digest, later_ms, new_length) in enumerate(steps):
        now_ms += later_ms
        window.expire(now_ms)
        new = submission(n, at_ms=now_ms, digest=digest, identity=Identity.EXACT)
        age_ms = now_ms - first.get(digest, 0)
        if window.find(new) is None:
            assert age_ms >= min(length, shortest.get(digest, 0))
            window.remember([new], (3, 1, 7, n))
            first[digest], shortest[digest] = now_ms, length
        else:
            assert age_ms < length
        if n % 3 == 0:
            length = new_length
            window.change(WindowPolicy(length, length))
            shortest = {digest: min(was, length) for digest, was in shortest.items()}


def test_a_long_bucket_holds_no_more_than_it_may_and_forgets_the_oldest_first() -> None:
    """A window of a day has buckets of three hours."""
    window = Window(WindowPolicy(800, 86_400_000, max_ids=4000))
    sent = [submission(n, at_ms=NOW_MS + n) for n in range(10_000)]
    for at in range(0, len(sent), 10):
        window.remember(sent[at : at + 10], ENTRY)

    assert 3000 <= len(window) <= 4000
    held = [window.find(each) is not None for each in sent]
    assert held == sorted(held)
    now_ms = NOW_MS + len(sent)
    assert window.effective_ms(now_ms) == sum(held)
    assert window.evicted_early == len(sent) - len(window)


def test_a_window_that_became_longer_reaches_as_far_as_the_shorter_did_at_first() -> None:
    window = Window(WindowPolicy(800, 800))
    window.expire(NOW_MS)
    window.change(WindowPolicy(60_000, 60_000))
    assert window.effective_ms(NOW_MS) == 900
    assert window.effective_ms(NOW_MS + 50_000) == 50_900
    assert window.effective_ms(NOW_MS + 500_000) == 60_000
