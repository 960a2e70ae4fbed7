"""
What nothing can beat: an app that does nothing on the same listener, and bare COPY.

As a program, ``python -m benchmarks.ceilings PORT``, it is one process of the no-op app.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.bodies import event
from benchmarks.service import free_port
from ray_tracking.events import EventType, Lane
from ray_tracking.http.listener import Listener
from ray_tracking.http.tracking import GIF
from ray_tracking.pipeline.route import event_ids
from ray_tracking.pipeline.rows import (
    COLUMNS,
    COPY_HEADER,
    COPY_TRAILER,
    POSITION_COLUMNS,
    copy_tuples,
    encode_row,
)
from ray_tracking.pipeline.validate import validate_data

#: As long as a real answer.
_ANSWER = b'{"success":true,"eventId":"%s","mode":"HYBRID","duplicate":false}' % (b"0" * 120)
_GIF_HEADERS = {
    "content-type": "image/gif",
    "cache-control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "pragma": "no-cache",
    "expires": "0",
    "x-tracking-durable": "1",
}
_SCRATCH = "bench_events"


async def _noop(request: Request) -> Response:
    if request.method == "GET":
        return Response(GIF, 200, _GIF_HEADERS)
    await request.body()
    return Response(_ANSWER, 202, media_type="application/json")


async def _serve(port: int) -> None:
    app = Starlette(routes=[Route("/{path:path}", _noop, methods=["GET", "POST"])])
    await Listener(app, "127.0.0.1", port).start()
    await asyncio.Event().wait()


@asynccontextmanager
async def noop_servers(processes: int) -> AsyncIterator[int]:
    """So many processes of the no-op app on one port, which is given."""
    port = free_port()
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, str(port))
        for _ in range(processes)
    ]
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionError:
                await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.5)  # the other processes, which the connection did not meet
        yield port
    finally:
        for process in running:
            process.terminate()
        for process in running:
            await process.wait()


class CopyCeiling:
    """
    Rows into a table like ``events``, with its indexes, and nothing else.

    Args:
        connection: To the service's own Postgres.
        rows: How many there are in a run, in one transaction each thousand.
    """

    _PER_COPY = 1000

    def __init__(self, connection: asyncpg.Connection[Any], rows: int) -> None:
        self._connection = connection
        now_ms = time.time_ns() // 1_000_000
        stamp = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
        self._records: list[tuple[Any, ...]] = []
        self._encoded: list[tuple[int, bytes]] = []
        for number in range(rows):
            data = event(number, stamp)
            (raw_id,) = event_ids(now_ms, number.to_bytes(16, "big"))
            valid = validate_data(EventType.EMAIL_OPEN, data, high=False, now_s=now_ms / 1000)
            self._encoded.append((number, encode_row(valid, raw_id, now_ms)))
            self._records.append(_record(number, raw_id, data, now_ms))

    async def records(self) -> float:
        """Rows per second of ``copy_records_to_table``, asyncpg's own encoding."""
        columns = [*POSITION_COLUMNS, *COLUMNS]
        return await self._measure(
            lambda at: self._connection.copy_records_to_table(
                _SCRATCH, records=self._records[at : at + self._PER_COPY], columns=columns
            )
        )

    async def encoded(self) -> float:
        """Rows per second that were encoded beforehand, as the writer gets them."""

        async def source(at: int) -> AsyncIterator[bytes]:
            rows = self._encoded[at : at + self._PER_COPY]
            yield COPY_HEADER + copy_tuples(0, Lane.NORMAL, 1, 1, rows) + COPY_TRAILER

        return await self._measure(
            lambda at: self._connection.copy_to_table(
                _SCRATCH,
                source=source(at),
                columns=[*POSITION_COLUMNS, *COLUMNS],
                format="binary",
            )
        )

    async def _measure(self, copy: Any) -> float:
        execute = self._connection.execute
        await execute(f"DROP TABLE IF EXISTS {_SCRATCH}")
        await execute(f"CREATE TABLE {_SCRATCH} (LIKE events INCLUDING ALL)")
        started = time.perf_counter()
        for at in range(0, len(self._records), self._PER_COPY):
            await copy(at)
        took_s = time.perf_counter() - started
        await execute(f"DROP TABLE {_SCRATCH}")
        return len(self._records) / took_s


def _record(number: int, raw_id: bytes, data: dict[str, str], now_ms: int) -> tuple[Any, ...]:
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    position = (0, "normal", 1, 1, number)
    return (
        *position,
        UUID(bytes=raw_id), "EMAIL_OPEN", data["campaignId"], data["leadId"], data["emailId"],
        data["accountId"], data["eventId"], moment, moment, None, None, None,
        ip_address(data["ipAddress"]), data["userAgent"], None, None, None, None,
    )  # fmt: skip


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
