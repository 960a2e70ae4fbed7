"""What a bench works with: the running service, its database, the load, the ceilings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import asyncpg

from benchmarks import load
from benchmarks.ceilings import CopyCeiling
from benchmarks.load import Order, Result
from benchmarks.plan import Plan
from benchmarks.service import Service
from benchmarks.sustained import Sustained, search

_DRAIN_S = 120
#: For loads at once, so that no number is sent twice.
_NUMBERS_APART = 1_000_000
_NO_END_S = 600.0
_OPEN_LOOP_CONNECTIONS = 256
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
        first: Number of the first event.
    """

    def __init__(
        self,
        service: Service,
        noop_port: int,
        database: asyncpg.Connection[Any],
        plan: Plan,
        first: int = 1,
    ) -> None:
        self.service = service
        self.noop_port = noop_port
        self.database = database
        self.plan = plan
        self._next_number = first
        self._sustained: dict[str, float] = {}

    @cached_property
    def copy(self) -> CopyCeiling:
        """What Postgres can take."""
        return CopyCeiling(self.database, 50_000)

    async def send(self, port: int, path: str, **shape: Any) -> Result:
        """Send events that nobody has seen, and return when all are answered."""
        (result,) = await self.send_all(port, {"path": path, **shape})
        return result

    async def send_all(self, port: int, *shapes: Mapping[str, Any]) -> list[Result]:
        """
        The same with several loads at once.

        Args:
            port: Where to.
            shapes: Of each what its :class:`Order` says besides; for a load that goes
                neither by time nor by events, the plan's seconds.
        """
        orders = []
        for shape in shapes:
            by_time = shape.get("events") is None
            defaults = {
                "batch": None,
                "connections": self.plan.connections,
                "seconds": self.plan.seconds if by_time else _NO_END_S,
                "secret": self.service.settings.get("email_encryption_key", ""),
            }
            asked = {name: value for name, value in shape.items() if name != "share"}
            orders.append(Order(port=port, first=self._next_number, **{**defaults, **asked}))
            self._next_number += _NUMBERS_APART * (len(shapes) > 1)
        results = await load.send_all(orders)
        self._next_number = max(result.next_number for result in results)
        return results

    async def sustained(self, port: int, start: float, *shapes: Mapping[str, Any]) -> Sustained:
        """
        The highest rate that is sustained, all rows written before the next is offered.

        Args:
            port: Where to.
            start: A likely rate in requests per second, of all loads together. An earlier
                run's result is likelier.
            shapes: As for :meth:`send_all`, each with its ``share`` of the requests.
        """

        async def offer(rate: float) -> list[Result]:
            results = await self.send_all(
                port,
                *[
                    {"connections": _OPEN_LOOP_CONNECTIONS // len(shapes), **shape}
                    | {"rate": rate * shape.get("share", 1)}
                    for shape in shapes
                ],
            )
            if port == self.service.port:
                await self.service.until_waiting(0, _DRAIN_S, ("in_log", "buffered", "spooled"))
            return results

        name = f"{port} {shapes}"
        found = await search(offer, self._sustained.get(name, start))
        self._sustained[name] = found.rate
        return found

    async def send_and_drain(self, path: str, **shape: Any) -> tuple[Result, float]:
        """
        Send to the service, and wait until every acknowledged event is a row.

        Args:
            path: The route.
            shape: As for :meth:`send_all`.

        Returns:
            What was answered, and the rows per second from the first request on.

        Raises:
            SystemExit: There are more rows than events, or fewer after two minutes.
        """
        before = await self.rows()
        result = await self.send(self.service.port, path, **shape)
        answered_s = time.perf_counter()
        # A hit becomes a row also when it was answered before it was durable.
        taken = result.requests if path == "/pixel" else result.acknowledged
        rows = taken * (shape.get("batch") or 1) - result.duplicates
        await self.until_rows(before + rows)
        # The way of the result between processes is not the service's.
        return result, rows / (result.seconds + time.perf_counter() - answered_s)

    async def until_rows(self, total: int) -> None:
        """
        Return when so many rows were ever committed.

        Raises:
            SystemExit: There are more, or fewer after two minutes.
        """
        deadline_s = time.perf_counter() + _DRAIN_S
        while (found := await self.rows()) < total:
            if time.perf_counter() > deadline_s:
                raise SystemExit(f"{total - found:,} acknowledged events are no rows")
            await asyncio.sleep(0.02)
        if found > total:
            raise SystemExit(f"there are {found - total:,} more rows than acknowledged events")

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
        return int(await self.database.fetchval(_ROWS))  # a sum is a numeric


def all_accepted(result: Result, what: str) -> None:
    """
    Stop where something was refused: the rate of refusals is no figure.

    Raises:
        SystemExit: Not every answer was 200 or 202.
    """
    if result.acknowledged != result.offered or not result.offered:
        raise SystemExit(f"{what}: not everything was accepted: {dict(result.statuses)}")
