"""
The whole as the supervisor sees it: what the parts say of themselves, put together.

What it makes is one mapping, the snapshot. Health, stats and metrics are made of it, so they
never say different things of the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray_tracking.events import Lane
from ray_tracking.pipeline.growth import Growth
from ray_tracking.pipeline.health import HealthJudge
from ray_tracking.pipeline.overview import (
    COUNTS,
    LastSaid,
    Overview,
    ReplicaReport,
    Status,
    counts,
    overview,
)
from ray_tracking.pipeline.progress import Progress

#: A replica that has said nothing for so long is gone.
_REPORT_FOR_S = 5.0
#: The words of a replica may have been under way for so long.
_OLD_NEWS_S = 3.0
#: What actors count since they began.
_ACTORS_COUNT = ("batches", "dedup_evicted_early")
#: In these lanes, what waits is to become rows at once.
_MOVING = (Lane.HIGH, Lane.NORMAL)


class Picture:
    """
    Keeps what outlives a part: last words, sums of counts, since when something stands still.

    Everywhere, ``now_s`` is a clock that never goes back.

    Args:
        now_s: When it begins.
    """

    def __init__(self, now_s: float) -> None:
        self._began_s = now_s
        self._replicas: dict[str, tuple[float, ReplicaReport]] = {}
        self._last_said = LastSaid(), LastSaid()
        self._counted = Growth([*COUNTS, *_ACTORS_COUNT])
        #: What was acknowledged and what was accepted since the shards first spoke.
        self._acknowledged = Growth(["acknowledged"])
        self._accepted_before = 0
        self._base_s: float | None = None
        self._stalls = {lane: Progress() for lane in _MOVING}
        self._postgres_up_since_s: float | None = None
        self._judge = HealthJudge()

    def report(self, report: ReplicaReport, now_s: float) -> None:
        """What a replica says of itself."""
        self._replicas[report.replica] = (now_s, report)
        counted = counts(report)
        self._counted.take(report.replica, counted, now_s)
        if self._base_s is None:
            return
        since_s = now_s - self._base_s
        is_new = report.uptime_s < since_s
        if is_new or since_s > _OLD_NEWS_S:
            self._acknowledged.take(report.replica, counted, now_s, is_new=is_new)

    def overview(
        self, shards: Sequence[Status], writers: Sequence[Status], now_s: float
    ) -> Overview:
        """The whole in figures, from the last words of all."""
        for name, (at_s, _) in list(self._replicas.items()):
            if at_s < now_s - _REPORT_FOR_S:
                del self._replicas[name]
        said_by_shards, said_by_writers = self._last_said
        replicas = [report for _, report in self._replicas.values()]
        return overview(said_by_shards(shards), said_by_writers(writers), replicas)

    def snapshot(
        self,
        shards: Sequence[Status],
        writers: Sequence[Status],
        said: Mapping[str, Any],
        *,
        now_s: float,
        unix_s: float,
    ) -> dict[str, Any]:
        """
        All that is known now, and under ``health`` the judgement.

        Args:
            shards: What each says, None where one is silent.
            writers: The same of them.
            said: More, that stands in it as it is: what the supervisor knows.
            now_s: As everywhere.
            unix_s: The time.
        """
        whole = self.overview(shards, writers, now_s)
        self._count([*shards, *writers], now_s)
        if self._base_s is None and all(shard and shard["started"] for shard in shards):
            self._base_s, self._accepted_before = now_s, whole.accepted
        acknowledged = self._acknowledged.totals["acknowledged"]
        postgres_up_ms = self._postgres_up_ms(said["postgres_up"], now_s)
        snapshot = {
            **said,
            "postgres_up_ms": postgres_up_ms,
            "shards": list(shards),
            "writers": list(writers),
            "replicas": [report for _, report in self._replicas.values()],
            "overview": whole,
            "counted": dict(self._counted.totals),
            "stalled_ms": self._stalled_ms(round(1000 * now_s)),
            # What replicas said is older than what shards say, but for a moment.
            "unaccounted": max(0, acknowledged - (whole.accepted - self._accepted_before)),
            "uptime_s": now_s - self._began_s,
        }
        return {**snapshot, "health": self._judge.judge(snapshot, now_s=unix_s)}

    def _count(self, actors: Sequence[Status], now_s: float) -> None:
        """Take in what actors count; what they counted before they died stays."""
        for status in actors:
            if status is not None:
                own = {name: status[name] for name in _ACTORS_COUNT if name in status}
                self._counted.take(status["name"], own, now_s)
        self._counted.forget(now_s)
        self._acknowledged.forget(now_s)

    def _postgres_up_ms(self, is_up: bool, now_s: float) -> int:
        """Since when it answers: without it nobody can be blamed for standing still."""
        if not is_up:
            self._postgres_up_since_s = None
            return 0
        if self._postgres_up_since_s is None:
            self._postgres_up_since_s = now_s
        return round(1000 * (now_s - self._postgres_up_since_s))

    def _stalled_ms(self, now_ms: int) -> dict[Lane, int]:
        """For how long nothing of a lane became rows although something waited."""
        shards, writers = (said([]) for said in self._last_said)
        stalled = {}
        for lane, progress in self._stalls.items():
            booked = sum(writer["stored"][lane] for writer in writers)
            appended = sum(shard["totals"][lane] for shard in shards)
            stalled[lane] = progress.stalled_ms(appended - booked, booked, now_ms)
        return stalled
