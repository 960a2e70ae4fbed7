"""What the HTTP layer is given to work with. It knows these, and neither Ray nor databases."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray_tracking.clock import Clock, steady_clock
from ray_tracking.http.access import Access
from ray_tracking.http.client_address import TrustedProxies
from ray_tracking.http.erased import ErasedLeads
from ray_tracking.http.gatherer import Gatherer
from ray_tracking.http.intake import Intake
from ray_tracking.http.live.affinity import Affinity
from ray_tracking.http.live.hub import Hub
from ray_tracking.http.spooler import Spooler
from ray_tracking.http.turns import Turns
from ray_tracking.pipeline.modes import Mode, pinned_mode
from ray_tracking.pipeline.room import Room
from ray_tracking.pipeline.route import Router, at_time, event_ids
from ray_tracking.pipeline.traffic import Traffic
from ray_tracking.pipeline.validate import Rule
from ray_tracking.settings import Settings
from ray_tracking.sources.tokens import TokenKeys
from ray_tracking.stores.geo import GeoTable
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.spans import Spans

#: What all requests of a replica together may take while they are worked on.
MAX_REQUEST_BYTES = 256 * 1024 * 1024
_IDS_AHEAD = 256


class ReplayJobs(Protocol):
    """Has replays carried out. A replay is a row of its table."""

    async def submit(self, replay: Mapping[str, Any]) -> None:
        """Begin one, or go on with it; :class:`Unavailable` if that cannot be."""

    async def stop(self, replay: Mapping[str, Any]) -> None:
        """End the process of one that was stopped."""


async def _nobody() -> None:
    """There is nobody to ask."""


@dataclass
class Ports:
    """Everything a replica's handlers share."""

    settings: Settings
    gatherer: Gatherer
    router: Router
    tokens: TokenKeys
    queries: Queries
    geo: GeoTable
    #: The merged health of the whole system, as the health page shows it.
    health: Callable[[], Awaitable[dict[str, Any]]]
    #: Whether events can be taken now, and if not, why.
    ready: Callable[[], Awaitable[str | None]]
    #: The figures of the whole system for Prometheus; None if nobody can tell.
    metrics: Callable[[], Awaitable[bytes | None]]
    #: Live updates.
    hub: Hub
    #: Whose a Socket.IO session is.
    affinity: Affinity
    #: ProcessingStats of the whole system; None if nobody can tell.
    stats: Callable[[], Awaitable[dict[str, Any] | None]]
    #: The settings in force, as ``GET /config`` shows them; None if nobody can tell.
    config: Callable[[], Awaitable[dict[str, Any] | None]] = _nobody
    rules: Sequence[Rule] = ()
    #: None where the spool is off.
    spooler: Spooler | None = None
    #: None where there is nobody to carry out replays.
    jobs: ReplayJobs | None = None
    clock: Clock = field(default_factory=steady_clock)
    #: None where nobody wants spans of traced requests.
    spans: Spans | None = None
    intake: Intake = field(init=False)
    traffic: Traffic = field(default_factory=Traffic)
    #: The processing mode in force, as the supervisor last said.
    mode: Mode = Mode.HYBRID
    #: Requests with events that are being worked on.
    requests: Room = field(init=False)
    turns: Turns = field(init=False)
    access: Access = field(init=False)
    proxies: TrustedProxies = field(init=False)
    erased: ErasedLeads = field(init=False)
    #: As good as new; their time is set when they are used.
    _ids: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mode = pinned_mode(self.settings.processing_mode) or Mode.HYBRID
        self.requests = Room(self.settings.max_buffer_size, MAX_REQUEST_BYTES)
        self.turns = Turns()
        self.intake = Intake(self.gatherer, self.spooler)
        self.proxies = TrustedProxies(self.settings.trusted_proxies)
        self.access = Access(
            self.settings.api_keys,
            self.settings.public_base_url,
            self.clock,
            proxies=self.proxies,
            requests_per_s=self.settings.max_requests_per_client,
        )
        self.erased = ErasedLeads(self.queries)

    def mint_many(self, count: int) -> tuple[list[bytes], float]:
        """As many new event ids as are wanted, and the one time that they hold."""
        now_ms = self.clock()
        return event_ids(now_ms, os.urandom(16 * count)), now_ms / 1000

    def mint(self) -> tuple[bytes, float]:
        """A new event id, and the Unix time in seconds that it holds."""
        now_ms = self.clock()
        if not self._ids:
            self._ids = event_ids(now_ms, os.urandom(16 * _IDS_AHEAD))
        return at_time(self._ids.pop(), now_ms), now_ms / 1000
