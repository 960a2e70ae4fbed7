"""What a replica says of itself to the supervisor."""

from __future__ import annotations

import time

from ray_tracking.http.app import App
from ray_tracking.http.ports import Ports
from ray_tracking.memory import rss_bytes
from ray_tracking.pipeline.overview import ReplicaReport


class Reporter:
    """
    Says how a replica is.

    Args:
        name: Of the replica.
        app: Its app.
        ports: What that works with.
    """

    def __init__(self, name: str, app: App, ports: Ports) -> None:
        self._name = name
        self._app = app
        self._ports = ports
        self._began_s = time.monotonic()

    def report(self) -> ReplicaReport:
        """How it is now."""
        ports, tracking, traffic = self._ports, self._app.tracking, self._ports.traffic
        spooler = ports.spooler
        requests, request_ms = traffic.last_minute(ports.clock())
        return ReplicaReport(
            replica=self._name,
            buffered=ports.gatherer.room.events,
            spooled=spooler.events if spooler else 0,
            spool_bytes=spooler.size_bytes if spooler else 0,
            spool_corrupt=spooler.corrupt if spooler else 0,
            spool_trouble=spooler.trouble if spooler else None,
            unconfirmed=tracking.unconfirmed,
            lost=tracking.lost,
            linger_s=ports.gatherer.linger_s,
            acknowledged=traffic.acknowledged,
            duplicates=traffic.duplicates,
            limited=traffic.limited,
            overloaded=traffic.overloaded,
            invalid=traffic.invalid,
            answers=list(traffic.answers),
            answer_ms=round(traffic.answer_ms),
            requests=requests,
            request_ms=request_ms,
            connections=ports.hub.connections,
            rss_bytes=rss_bytes(),
            uptime_s=time.monotonic() - self._began_s,
        )
