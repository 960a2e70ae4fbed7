"""What a bench works with: the running service, its database, the load, the ceilings."""

from __future__ import annotations

import asyncio
import time
from functools import cached_property
from typing import Any, NamedTuple

import asyncpg

from benchmarks import load
from benchmarks.ceilings import CopyCeiling
from benchmarks.load import Order, Result
from benchmarks.plan import Plan
from benchmarks.service import Service

_DRAIN_S = 120
_ROWS = "SELECT sum(rows_total) FROM log_positions"


class Figure(NamedTuple):
    """
    One line of the table.

    Args:
        name: What it is.
        unit: Of its value.
        ceilings: Names of the figures that it is divided by.
    """

    name: str
    unit: str
    ceilings: tuple[str, ...] = ()


class Lab:
    """
    Args:
        service: Under test.
        noop_port: Of the app that does nothing.
        database: A connection to the service's Postgres.
        plan: How much to send, and how.
    """

    def __init__(
        self,
        service: Service,
        noop_port: int,
        database: asyncpg.Connection[Any],
        plan: Plan,
    ) -> None:
        self.service = service
        self.noop_port = noop_port
        self.database = database
        self.plan = plan
        self._next_number = 1

    @cached_property
    def copy(self) -> CopyCeiling:
        """What Postgres can take."""
        return CopyCeiling(self.database, 50_000)

    async def send(
        self,
        port: int,
        path: str,
        *,
        batch: int | None = None,
        events: int | None = None,
        connections: int | None = None,
        seconds: float | None = None,
    ) -> Result:
        """Send events that nobody has seen, and return when all are answered."""
        order = Order(
            port=port,
            path=path,
            batch=batch,
            connections=connections or self.plan.connections,
            seconds=seconds or self.plan.seconds,
            first=self._next_number,
            events=events,
        )
        result = await load.send(order)
        self._next_number = result.next_number
        return result

    async def send_and_drain(self, path: str, accepted: int, **shape: Any) -> tuple[Result, float]:
        """
        Send to the service, and wait until every acknowledged event is a row.

        Args:
            path: The route.
            accepted: The status of an accepted request.
            shape: As for :meth:`send`.

        Returns:
            What was answered, and the rows per second from the first request on.

        Raises:
            SystemExit: There are more rows than events, or fewer after two minutes.
        """
        before = await self.rows()
        result = await self.send(self.service.port, path, **shape)
        answered_s = time.perf_counter()
        rows = result.statuses.get(accepted, 0) * (shape.get("batch") or 1)
        while (found := await self.rows() - before) < rows:
            if time.perf_counter() > answered_s + _DRAIN_S:
                raise SystemExit(f"{rows:,} events are acknowledged, and {found:,} are rows")
            await asyncio.sleep(0.02)
        if found > rows:
            raise SystemExit(f"{rows:,} events are acknowledged, but {found:,} are rows")
        # The way of the result between processes is not the service's.
        return result, rows / (result.seconds + time.perf_counter() - answered_s)

    async def check_rows(self) -> None:
        """
        At the very end: the cheap count was right.

        Raises:
            SystemExit: It was not.
        """
        counted, said = await self.database.fetchrow(  # in one snapshot
            f"SELECT (SELECT count(*) FROM events), ({_ROWS})"
        )
        if counted != said:
            raise SystemExit(f"the positions stand for {said:,} rows, but there are {counted:,}")

    async def rows(self) -> int:
        """Rows ever committed, from the positions: cheap, and moved with the rows."""
        total: int = await self.database.fetchval(_ROWS)
        return total


def all_accepted(result: Result, what: str) -> None:
    """
    Stop where something was refused: the rate of refusals is no figure.

    Raises:
        SystemExit: Not every answer was 200 or 202.
    """
    if result.acknowledged != result.requests or not result.requests:
        raise SystemExit(f"{what}: not everything was accepted: {dict(result.statuses)}")
