"""A session with Postgres of one owner, which ends when it is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from ray_tracking.stores.database import connect
from ray_tracking.stores.failures import UNCLEAR, StoreRefused, StoreUnavailable, understood

#: A session that has not answered by then is given up, and what it did is unclear.
ANSWER_WITHIN_S = 30.0

_END_PREDECESSORS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()
  AND usename = current_user
"""


class Session:
    """
    One connection at a time, opened when it is needed.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Of the owner: the session is found, and ended by a successor, by it.
        settings: More of what the session sets.
        within_s: How long one use may take, where that is longer than usual.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        name: str,
        settings: Mapping[str, str] | None = None,
        within_s: float | None = None,
    ) -> None:
        self._url = url
        self._schema = schema
        # With the schema, because two deployments may share a database; Postgres cuts at 63.
        self._name = f"{name} {schema}"[:63]
        self._settings = dict(settings or {})
        self._within_s = within_s
        self._connection: asyncpg.Connection[Any] | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """
        The connection, for as long as it is alive and nothing is left open on it.

        What Postgres refused is rolled back. Anything else that goes wrong ends the
        session without a word: a dead network would not answer a ROLLBACK either, and a
        task that is being cancelled must not wait for it.

        Raises:
            StoreUnavailable: If Postgres does not answer.
            StoreRefused: If it says no.
        """
        connection = await self._connected()
        timer = asyncio.get_running_loop().call_later(
            self._within_s or ANSWER_WITHIN_S, connection.terminate
        )
        try:
            try:
                yield connection
            except asyncpg.PostgresError:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")
                raise
        except Exception as error:
            meant = understood(error, connected=not connection.is_closed())
            if not isinstance(meant, StoreRefused):
                await self.close()
            if meant is not None:
                raise meant from error
            raise
        except BaseException:
            await self.close()
            raise
        finally:
            timer.cancel()

    async def end_predecessors(self, connection: asyncpg.Connection[Any]) -> None:
        """End the sessions of owners of the same name that came before."""
        await connection.fetch(_END_PREDECESSORS, self._name)

    async def close(self) -> None:
        """Drop the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await connect(
                    self._url, self._schema, self._name, self._settings
                )
            except (*UNCLEAR, asyncpg.PostgresError) as error:
                raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        return self._connection
