"""The service under attack: a real ``ray-tracking run``, and where its rows are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
from yarl import URL

from tests.chaos import processes
from tests.chaos.clients import IDEMPOTENCY_WINDOW_S
from tests.chaos.clock import WallClock
from tests.chaos.history import Letter, Place, Row
from tests.chaos.processes import Process
from tests.chaos.servers import Disk, Outside
from tests.e2e.service import BIN, Service

_HIT_TYPES = ("EMAIL_OPEN", "LINK_CLICK")
_STOPS_WITHIN_S = 40.0
#: Also behind a fault that is being mended.
_SHOWN_WITHIN_S = 60.0
_ASK_AGAIN_S = 0.2

#: Counts follow the rows within a second; a service that has just started gets longer.
_COUNTED_WITHIN_S = 20.0
_FIGURES = ("sent", "opens", "uniqueOpens", "clicks", "uniqueClicks", "replies", "machineOpens")
_RECOUNT = """
SELECT campaign_id,
       count(*) FILTER (WHERE human AND event_type = 'EMAIL_SENT') AS sent,
       count(*) FILTER (WHERE human AND event_type = 'EMAIL_OPEN') AS opens,
       count(DISTINCT lead_id) FILTER (WHERE human AND event_type = 'EMAIL_OPEN') AS uniqueopens,
       count(*) FILTER (WHERE human AND event_type = 'LINK_CLICK') AS clicks,
       count(DISTINCT lead_id) FILTER (WHERE human AND event_type = 'LINK_CLICK') AS uniqueclicks,
       count(*) FILTER (WHERE human AND event_type = 'EMAIL_REPLY') AS replies,
       count(*) FILTER (WHERE NOT human AND event_type = 'EMAIL_OPEN') AS machineopens
FROM (SELECT *, agent IS DISTINCT FROM 'machine' AS human FROM events
      WHERE campaign_id IS NOT NULL) e
GROUP BY campaign_id
"""

_SETTINGS = {
    "TRACKING_INGRESS_REPLICAS": "2",
    "TRACKING_SHARDS": "2",
    "TRACKING_PARTITIONS": "8",
    "TRACKING_MAX_EVENTS_PER_WINDOW": "1000000",
    "TRACKING_BURST_CAPACITY": "100000",
    "TRACKING_DEDUPLICATION_WINDOW_MS": str(IDEMPOTENCY_WINDOW_S * 1000),
    "TRACKING_ANSWER_TIMEOUT_MS": "200",
    "RAY_BACKEND_LOG_LEVEL": "warning",
}


class Target:
    """
    One service with fresh data.

    Args:
        root: Of everything that it leaves behind, its logs among it.
        outside: Its servers; None for those that it starts itself.
        product: A directory with another ``ray_tracking`` to run instead of ours.
        clock: By which it goes; None for that of the machine.
        settings: More environment variables.
    """

    def __init__(
        self,
        root: Path,
        outside: Outside | None = None,
        product: Path | None = None,
        clock: WallClock | None = None,
        **settings: str,
    ) -> None:
        self.root = root
        self.outside = outside
        self.clock = clock
        self.failpoints = root / "failpoints"
        self.failpoints.mkdir()
        #: Small ones that can be filled, by what lies on them.
        self.disks: dict[str, Disk] = {}
        self.product = product or Path(__file__).parents[2]
        self.settings = {**_SETTINGS, "RAY_TMPDIR": str(root / "ray"), **settings}
        paths = [str(product)] if product else []
        if clock is not None:
            self.settings |= clock.settings
            paths.append(clock.python_path)
        if paths:
            self.settings["PYTHONPATH"] = os.pathsep.join(paths)
        if (self.product / "ray_tracking" / "failpoints.py").exists():
            self.settings["TRACKING_FAILPOINTS_DIR"] = str(self.failpoints)
        if outside is not None:
            self.settings["DATABASE_URL"] = outside.database_url
            self.settings["REDIS_URL"] = outside.redis_url
        self.service = Service(root, **self.settings)
        self.url = self.service.url
        self.starts = 0

    @property
    def environment(self) -> Mapping[str, str]:
        """What its command line needs to find it."""
        return {
            "PATH": os.defpath,
            "TRACKING_PORT": str(self.service.port),
            "TRACKING_DATA_DIR": str(self.service.data_dir),
            **self.settings,
        }

    @property
    def database_url(self) -> str:
        """Not through any cable."""
        if self.outside is not None:
            return self.outside.postgres.url
        return f"postgresql://postgres@/ray_tracking?host={self.service.data_dir / 'postgres'}"

    # -- life --------------------------------------------------------------------

    async def start(self) -> float:
        """Start it; how many seconds it took until it took events."""
        began_s = time.monotonic()
        self.service.output = self.root / f"output-{self.starts + 1}.log"
        self.service.launch()
        self.starts += 1
        await asyncio.to_thread(self.service.wait_until_ready)
        return time.monotonic() - began_s

    async def stop(self) -> int | None:
        """Ctrl-C; the exit code, or None when it had to be killed."""
        process = self.service.process
        code = None
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            code = await asyncio.to_thread(process.wait, _STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            code = None
        self.kill_all()
        return code

    async def forbid_poison(self) -> None:
        """From now on Postgres refuses the events of one lead, alone."""
        if self.has_dead_letters:
            await self.sql(
                "ALTER TABLE events ADD CONSTRAINT no_poison CHECK (lead_id <> 'poison') NOT VALID"
            )

    @property
    def has_dead_letters(self) -> bool:
        """Whether this product knows what to do with an event that Postgres refuses."""
        return (self.product / "ray_tracking" / "stores" / "dead_letters.py").exists()

    @property
    def has_live_updates(self) -> bool:
        """Whether this product has a broadcaster."""
        return (self.product / "ray_tracking" / "actors" / "broadcaster.py").exists()

    @property
    def is_whole(self) -> bool:
        """Whether every process that takes events is there, and whoever looks after them."""
        wanted = {"replica": 2, "shard": 2, "writer": 1, "supervisor": 1, "controller": 1}
        if self.has_live_updates:
            wanted["broadcaster"] = 1
        there = self._all()
        return all(
            sum(map(processes.KINDS[kind], there)) >= count for kind, count in wanted.items()
        )

    @property
    def is_running(self) -> bool:
        """Whether ``ray-tracking run`` itself lives."""
        return self.service.process.poll() is None

    # -- processes ---------------------------------------------------------------

    def processes(self, kind: str) -> list[Process]:
        """Those of one kind, oldest first; never the servers of our own."""
        there = filter(processes.KINDS[kind], self._all())
        return sorted(there, key=lambda process: process.pid)

    def kill_all(self) -> int:
        """``kill -9`` of everything at once; how many there were."""
        return sum(victim.signal(signal.SIGKILL) for victim in self._all())

    def _all(self) -> list[Process]:
        """Every process of the service. Servers outside are no part of it."""
        started = self.starts > 0
        found = processes.all_of(self.root, *([self.service.process.pid] if started else []))
        if self.outside is None:
            return found
        homes = (str(self.outside.valkey_home), str(self.outside.postgres_home))
        return [
            process
            for process in found
            if not process.command.startswith("postgres:")
            and not any(home in process.command for home in homes)
        ]

    # -- looking -----------------------------------------------------------------

    async def health(self) -> dict[str, Any] | None:
        """The health page; None when nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as session,
                session.get(f"{self.url}/health/tracking") as answer,
            ):
                page: dict[str, Any] = await answer.json()
                return page
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    async def sql(self, query: str, *arguments: Any) -> list[Any]:
        """Ask Postgres."""
        connection = await asyncpg.connect(self.database_url, timeout=10)
        try:
            return list(await connection.fetch(query, *arguments, timeout=120))
        finally:
            await connection.close()

    async def rows(self) -> list[Row]:
        """Every event that became a row."""
        found = await self.sql(
            "SELECT client_event_id, event_type, campaign_id, lead_id, event_id::text, "
            "log_partition, log_lane, log_epoch, log_seq, log_index FROM events"
        )
        return [Row(_key(row[0], row[1], row[3]), row[2], row[4], Place(*row[5:])) for row in found]

    async def letters(self) -> list[Letter]:
        """
        Every dead letter, as the API shows it; none where there is no such thing yet.

        Raises:
            TimeoutError: It did not show them in time.
        """
        letters: list[Letter] = []
        after = ""
        async with aiohttp.ClientSession() as session, asyncio.timeout(_SHOWN_WITHIN_S):
            while (page := await self._page_of_letters(session, after)) is not None:
                for item in page["items"]:
                    data = item["eventData"]
                    key = _key(data.get("eventId"), item["eventType"], data.get("leadId"))
                    letters.append(Letter(key, item["id"], item["status"]))
                if page["next"] is None:
                    break
                after = f"&after={page['next']}"
        return letters

    async def _page_of_letters(
        self, session: aiohttp.ClientSession, after: str
    ) -> dict[str, Any] | None:
        """Asked for until it is there: Postgres may be away, or a replica may have just died."""
        while True:
            with suppress(aiohttp.ClientError, OSError):
                async with session.get(f"{self.url}/dead-letters?limit=1000{after}") as answer:
                    if answer.status == 404:
                        return None
                    if answer.status == 200:
                        page: dict[str, Any] = await answer.json()
                        return page
            await asyncio.sleep(_ASK_AGAIN_S)

    async def differences(self) -> list[str]:
        """Figures of campaigns that do not become what a recount of the rows gives."""
        deadline_s = time.monotonic() + _COUNTED_WITHIN_S
        while True:
            found = await self._differences()
            if not found or time.monotonic() > deadline_s:
                return found
            await asyncio.sleep(0.5)

    async def _differences(self) -> list[str]:
        rows = await self.sql(_RECOUNT)
        found: list[str] = []
        async with aiohttp.ClientSession() as session:
            for row in rows:
                base = f"{self.url}/campaigns/{quote(row['campaign_id'], safe='')}"
                async with session.get(URL(f"{base}/verify", encoded=True)) as answer:
                    if answer.status == 404:
                        return []  # an earlier version has no such thing
                    check = await answer.json()
                async with session.get(URL(f"{base}/stats", encoded=True)) as answer:
                    stats = await answer.json()
                if check.get("equal") is not True:
                    found.append(f"{row['campaign_id']} does not verify: {check}")
                shown = {name: stats.get(name) for name in _FIGURES}
                counted = {name: row[name.lower()] for name in _FIGURES}
                if shown != counted:
                    found.append(f"{row['campaign_id']} shows {shown}, and its rows say {counted}")
        return found

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run ``ray-tracking`` against it; exit code and output."""
        process = await asyncio.create_subprocess_exec(
            str(BIN / "ray-tracking"), *arguments,
            env=dict(self.environment), cwd=self.root,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")


def _key(client_event_id: str | None, event_type: str, lead_id: str | None) -> str:
    """As the clients call it: see :class:`~tests.chaos.history.Sent`."""
    return client_event_id or f"{event_type}|{lead_id}"
