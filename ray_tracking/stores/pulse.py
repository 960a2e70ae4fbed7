"""Is Postgres there, and what waits in it for somebody: asked again and again, on one session."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ray_tracking.stores.failures import StoreRefused, StoreUnavailable
from ray_tracking.stores.session import Session

#: More letters than this are said to be this many.
MOST_LETTERS = 100_000

_LOOK = f"""
SELECT count(*) FROM (SELECT FROM dead_letters WHERE status = 'dead' LIMIT {MOST_LETTERS}) open
"""


class Pulse(NamedTuple):
    """What was found."""

    is_up: bool
    #: Why Postgres does not answer, or says no.
    trouble: str | None = None
    #: Dead letters that wait, if that could be asked.
    dead_letters: int | None = None


class PulseReader:
    """
    Looks at Postgres.

    Args:
        url: Of Postgres.
        schema: Where our tables are.
        name: Of who looks.
    """

    def __init__(self, url: str, schema: str, name: str) -> None:
        self._session = Session(url, schema, name)

    async def look(self, within_s: float) -> Pulse:
        """How it is now; asked for so long."""
        try:
            async with asyncio.timeout(within_s), self._session.use() as connection:
                return Pulse(True, None, await connection.fetchval(_LOOK))
        except TimeoutError:
            return Pulse(False, f"no answer in {within_s:g} s")
        except StoreUnavailable as error:
            return Pulse(False, str(error))
        except StoreRefused as error:
            # It answers, so it is there; whoever asked for more will say what is wrong.
            return Pulse(True, str(error))

    async def close(self) -> None:
        """Drop the connection."""
        await self._session.close()
