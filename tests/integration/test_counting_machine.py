"""
Any interleaving of events, duplicates, late arrivals, deaths, replays and retention leaves
every figure equal to a recount.

The parts are the real ones on a real Postgres; they die where a fail-point says so. What was
dropped by retention is remembered here, so the recount has every row that there ever was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ray_tracking import failpoints
from ray_tracking.actors.roller import Roller
from ray_tracking.events import EventType
from ray_tracking.pipeline.append import EntryId
from ray_tracking.pipeline.replay import ReplayRequest
from ray_tracking.pipeline.retention import LEAVING
from ray_tracking.stores.embedded import ServerUrls
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.recompute import Recompute
from ray_tracking.stores.retention import Retention
from ray_tracking.stores.rolling import RollupWriter
from tests.support.recount import recount, rolled
from tests.support.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

CAMPAIGNS = ("c0", "c1", "c2")
START = datetime(2026, 11, 20, tzinfo=UTC)
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
ROLLER_POINTS = (None, "roller.counted", "roller.committed")
REPLAY_POINTS = (None, "replay.counted", "replay.swapping", "replay.swapped")
RETENTION_POINTS = (None, "retention.renamed", "retention.sealed", "retention.detached")

events = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(EventType)),
        "campaignId": st.sampled_from(CAMPAIGNS),
        "lead": st.sampled_from(["ada", "bob", "cy"]),
        "minutes": st.integers(0, 3000),
        "days_late": st.sampled_from([0, 0, 0, 1, 99, 100]),
        "bounce": st.sampled_from(["hard", "soft"]),
        "link": st.sampled_from(["https://a.example/", "https://b.example/"]),
        "machine": st.booleans(),
    }
)


class _Dies(BaseException):
    """The process has ended at a fail-point."""


class Counting(RuleBasedStateMachine):
    """Rows come by flushes of a hand-held writer; everything that counts them is real."""

    loop: asyncio.AbstractEventLoop
    urls: ServerUrls

    def __init__(self) -> None:
        super().__init__()
        assert self.urls.database_url
        assert self.urls.redis_url
        self.stack = Stack(self.urls.database_url, self.urls.redis_url)
        self.dying: str | None = None
        #: Of rows that retention has dropped.
        self.gone: list[dict[str, Any]] = []
        self.serial = 0
        self.replays: dict[str, str] = {}
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> None:
        await self.stack.open()
        self.owner = await self.stack.shard()
        self.queries = await Queries.open(self.stack.database_url, self.stack.schema)
        self.roller: RollupWriter | None = None

    async def _dying_at(self, point: str | None, work: Coroutine[Any, Any, Any]) -> bool:
        """Do something that dies at a point, if it comes by; whether it lived."""
        self.dying = point
        try:
            await work
            return True
        except _Dies:
            return False
        finally:
            self.dying = None

    def reach(self, path: Path, data: tuple[bytes, ...]) -> None:
        if path.name == self.dying:
            self.dying = None
            raise _Dies(path.name)

    # -- what happens ---------------------------------------------------------------

    @rule(batch=st.lists(events, min_size=1, max_size=12))
    def rows_come(self, batch: list[dict[str, Any]]) -> None:
        self.run(self._write(batch))

    async def _write(self, batch: list[dict[str, Any]]) -> None:
        if await self.stack.sql("SELECT FROM pg_tables WHERE schemaname = $1 AND tablename LIKE $2",
                                self.stack.schema, f"%{LEAVING}"):  # fmt: skip
            # A row of a day that is half dropped waits until somebody has dropped it.
            await self._drop(None)
        made = [self._event(one) for one in batch]
        # The second time they are duplicates.
        await self.owner.submit(*made)
        await self.owner.submit(*made)
        scribe = await self.stack.writer()
        await asyncio.gather(*[pump.drain() for pump in scribe.writer._pumps])
        await scribe.kill()

    def _event(self, one: dict[str, Any]) -> Any:
        self.serial += 1
        kind = one["kind"]
        received = datetime.now(UTC) - timedelta(days=one["days_late"])
        fields: dict[str, Any] = {
            "campaignId": one["campaignId"],
            "eventId": f"id-{self.serial}",
            "timestamp": (START + timedelta(minutes=one["minutes"])).isoformat(),
        }
        if kind not in (EventType.ACCOUNT_HEALTH_UPDATE, EventType.CAMPAIGN_STATUS_CHANGE):
            fields["leadId"] = one["lead"]
        if kind is EventType.LINK_CLICK:
            fields |= {"linkUrl": one["link"], "linkId": one["bounce"]}
        if kind is EventType.EMAIL_BOUNCE:
            fields["bounceType"] = one["bounce"]
        return self.stack.event(kind, received_ms=int(received.timestamp() * 1000), **fields)

    @rule(rows=st.sampled_from([3, 20, 1000]), point=st.sampled_from(ROLLER_POINTS))
    def the_roller_steps(self, rows: int, point: str | None) -> None:
        self.run(self._roll(rows, point))

    async def _roll(self, rows: int, point: str | None) -> None:
        if self.roller is None:
            self.roller = RollupWriter(
                self.stack.database_url, self.stack.schema, "roller", range(self.stack.partitions)
            )
            await self.roller.take_over()
        if not await self._dying_at(point, self.roller.step(rows)):
            await self.roller.close()
            self.roller = None

    @rule(campaign=st.sampled_from(CAMPAIGNS), size=st.sampled_from([1, 4, 100]))
    def a_replay_is_asked_for(self, campaign: str, size: int) -> None:
        if len(self.replays) < 3:
            self.serial += 1
            self.run(self._ask(f"replay-{self.serial}", campaign, size))

    async def _ask(self, replay_id: str, campaign: str, size: int) -> None:
        request = ReplayRequest(
            campaign_id=campaign, since=ALWAYS[0], until=ALWAYS[1], batch_size=size
        )
        await self.queries.replays.create(replay_id, request, 0)
        self.replays[replay_id] = campaign

    @rule(data=st.data(), steps=st.integers(0, 4), point=st.sampled_from(REPLAY_POINTS))
    def a_replay_goes_on(self, data: st.DataObject, steps: int, point: str | None) -> None:
        """Some steps by a new process; with many it may come to its end."""
        if self.replays:
            replay_id = data.draw(st.sampled_from(sorted(self.replays)))
            self.run(self._replay(replay_id, steps, point))

    async def _replay(self, replay_id: str, steps: int, point: str | None) -> None:
        recompute = Recompute(self.stack.database_url, self.stack.schema, replay_id)
        await self._dying_at(point, self._go_on(recompute, replay_id, steps))
        await recompute.close()
        state = await self.queries.replays.find(replay_id)
        assert state is not None
        if state["status"] == "SUCCEEDED":
            del self.replays[replay_id]

    async def _go_on(self, recompute: Recompute, replay_id: str, steps: int) -> None:
        await recompute.begin()
        for _ in range(steps * 5):
            if not await recompute.step() and await recompute.swap():
                await recompute.clear(self.replays[replay_id])
                return

    @rule(point=st.sampled_from(RETENTION_POINTS))
    def old_days_are_dropped(self, point: str | None) -> None:
        self.run(self._drop(point))

    async def _drop(self, point: str | None) -> None:
        await self._roll(100_000, None)
        old = await self.stack.sql("SELECT *, tableoid FROM events WHERE received_at < $1",
                                   datetime.now(UTC) - timedelta(days=95))  # fmt: skip
        before = {row["event_id"]: dict(row) for row in old}
        retention = Retention(self.stack.database_url, self.stack.schema)

        async def run() -> None:
            async for _ in retention.run(90):
                pass

        await self._dying_at(point, run())
        await retention.close()
        left = {row["event_id"] for row in await self.stack.sql("SELECT event_id FROM events")}
        self.gone += [row for key, row in before.items() if key not in left]

    @rule()
    def figures_are_harmed_and_replayed(self) -> None:
        """What nobody may do, mended by a replay of every campaign."""
        self.run(self._harm())

    async def _harm(self) -> None:
        for table, column in (("totals", "opens"), ("buckets", "events"), ("links", "clicks")):
            await self.stack.sql(
                f"UPDATE rollup_{table} SET {column} = {column} + 5 WHERE generation >= 0"
            )
        for campaign in CAMPAIGNS:
            self.serial += 1
            replay_id = f"mending-{self.serial}"
            await self._ask(replay_id, campaign, 50)
            await self._replay(replay_id, 1000, None)
            assert replay_id not in self.replays

    # -- what must hold -------------------------------------------------------------

    @invariant()
    def every_figure_equals_the_recount(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        positions = {
            (row["log_partition"], row["log_lane"]): EntryId(row["epoch"], row["seq"])
            for row in await self.stack.sql("SELECT * FROM rollup_positions")
        }
        rows = [
            row
            for row in await self.stack.rows()
            if EntryId(row["log_epoch"], row["log_seq"])
            <= positions[row["log_partition"], row["log_lane"]]
        ]
        assert await rolled(self.stack.sql) == recount([*rows, *self.gone])
        async for check in self.queries.verifier.check_many():
            assert check.differences == [], check.campaign_id

    def teardown(self) -> None:
        self.run(self._close())

    async def _close(self) -> None:
        if self.roller is not None:
            await self.roller.close()
        await self.queries.close()
        await self.stack.close()


async def _never(roller: Any) -> None:
    """In the place of the writer's own roller: here it is led by the hand."""
    await asyncio.Event().wait()


def test_any_history_leaves_every_figure_equal_to_a_recount(
    servers: ServerUrls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machines: list[Counting] = []

    class Machine(Counting):
        loop, urls = asyncio.new_event_loop(), servers

        def __init__(self) -> None:
            machines.append(self)
            super().__init__()

    # Each machine has parts of its own, and the points are of the process.
    monkeypatch.setattr(failpoints, "_reach", lambda path, data: machines[-1].reach(path, data))
    monkeypatch.setattr(Roller, "run", _never)
    failpoints.arm(tmp_path)
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=6,
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        failpoints.arm(None)
        Machine.loop.close()
