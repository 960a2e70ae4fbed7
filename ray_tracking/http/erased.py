"""Which tokens belong to leads that were erased? Hits of those are answered and not recorded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import structlog

from ray_tracking.stores.failures import StoreUnavailable
from ray_tracking.stores.queries import Queries

#: Much sooner than :data:`~ray_tracking.stores.erase.GRACE_S`, until which the writer discards.
_EVERY_S = 2.0
#: A transaction that commits late has an earlier time than those that were seen.
_OVERLAP = timedelta(minutes=5)

log = structlog.get_logger("ray_tracking.ingress")


class ErasedLeads:
    """
    Remembers the tombstones, as far as Postgres has told.

    Args:
        queries: Where they are.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._erased_at_s: dict[bytes, float] = {}
        self._newest = datetime(1970, 1, 1, tzinfo=UTC)

    def refuses(self, lead_id: str, minted_at_s: int) -> bool:
        """Whether a token of a lead was minted before the lead was erased."""
        if not self._erased_at_s:
            return False
        erased_at_s = self._erased_at_s.get(sha256(lead_id.encode()).digest())
        return erased_at_s is not None and minted_at_s <= erased_at_s

    async def refresh(self) -> None:
        """Hear of those that came since."""
        since = self._newest - _OVERLAP
        for key, erased_at in (await self._queries.leads.tombstones(since)).items():
            self._erased_at_s[key] = erased_at.timestamp()
            self._newest = max(self._newest, erased_at)

    async def run(self) -> None:
        """Refresh, for as long as this is wanted."""
        while True:
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.debug("tombstones not read", reason=str(error))
            await asyncio.sleep(_EVERY_S)
