"""The owner of a partition and its log, for the tests of admission."""

from __future__ import annotations

from ray_tracking.pipeline.admit import AdmissionPolicy, Partition
from ray_tracking.pipeline.append import EntryId, Header, decode_entry
from ray_tracking.pipeline.gather import Outcome, Verdict
from ray_tracking.pipeline.places import Append, Reservation, State
from ray_tracking.pipeline.rate import RatePolicy
from ray_tracking.pipeline.route import IDENTITY_SHIFT, Identity, Submission, received_ms
from ray_tracking.pipeline.window import WindowPolicy
from tests.unit.pipeline.samples import NOW_MS

HIGH, NORMAL, PARKED = range(3)
POLICY = AdmissionPolicy(
    window=WindowPolicy(dedup_window_ms=800, idempotency_window_ms=2400),
    rate=RatePolicy(max_events=12, window_ms=3000, burst=4),
    max_entry_events=3,
    max_entry_bytes=1000,
)
EPOCH = 1_795_459_200
#: What is said while a buffer or the log is full.
FULL = Outcome(Verdict.FULL, retry_after_s=7.0)

Log = list[list[tuple[EntryId, dict[bytes, bytes]]]]


def owner(policy: AdmissionPolicy = POLICY, number: int = 3) -> Partition:
    """The first owner of a partition."""
    return Partition(number, policy, epoch=EPOCH, totals=[0, 0, 0])


def reserve(partition: Partition, new: Submission, *, now_ms: int = NOW_MS) -> Reservation:
    """Offer an event that gets a place."""
    place = partition.offer(new, now_ms=now_ms)
    assert isinstance(place, Reservation)
    return place


def commit_all(partition: Partition, *, now_ms: int = NOW_MS) -> list[Append]:
    """Append whatever waits, until nothing does."""
    done = []
    while appends := partition.take(now_ms=now_ms):
        for append in appends:
            partition.committed(append, now_ms=now_ms)
        done += appends
    return done


def append_all(partition: Partition, log: Log, *, now_ms: int = NOW_MS) -> list[Header]:
    """The same, into a log; the headers of the entries."""
    headers = []
    while appends := partition.take(now_ms=now_ms):
        for append in appends:
            assert append.id is not None
            log[append.lane].append((append.id, append.fields))
            headers.append(decode_entry(str(append.id).encode(), append.fields).header)
            partition.committed(append, now_ms=now_ms)
    return headers


def successor(
    log: Log,
    *,
    now_ms: int,
    policy: AdmissionPolicy = POLICY,
    since_ms: int | None = None,
    number: int = 3,
) -> Partition:
    """
    A new owner that has read what an old one left, lane by lane, as far back as it needs.

    Args:
        log: Every lane of the partition.
        now_ms: Unix time.
        policy: The rules.
        since_ms: How far back, if not by one window.
        number: Of the partition.
    """
    ends = [lane[-1][0].epoch for lane in log if lane]
    partition = Partition(number, policy, epoch=max([EPOCH, *ends]) + 1, totals=[0, 0, 0])
    for lane, entries in enumerate(log):
        for entry_id, fields in entries:
            entry = decode_entry(str(entry_id).encode(), fields)
            if entry.header.appended_ms >= (since_ms or now_ms - policy.longest_ms):
                partition.restore(entry, lane, now_ms=now_ms)
    return partition


def one_event(policy: WindowPolicy, one: Submission, other: Submission) -> bool:
    """The rule of identity, in its own words."""
    if one.event_id == other.event_id:
        return True
    identity = Identity(one.flags >> IDENTITY_SHIFT & 0b11)
    given = identity is Identity.GIVEN
    window_ms = policy.idempotency_window_ms if given else policy.dedup_window_ms
    near = abs(received_ms(one.event_id) - received_ms(other.event_id)) < window_ms
    if identity is Identity.TIMED:
        near = near and abs(one.occurred_us - other.occurred_us) < policy.dedup_window_ms * 1000
    return near and one.digest == other.digest


def on_its_way(append: Append) -> bool:
    """Has it been sent, and not been settled?"""
    return append.state in (State.SENT, State.UNCLEAR)
