"""``GET /metrics``: the books and the state of the whole cluster as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.level import Level
from ray_tracking.pipeline.overview import Overview, worst_breaker

_BREAKER_STATES = ("closed", "half_open", "open")
_PREFIX = "ray_tracking"


def exposition(snapshot: Mapping[str, Any]) -> bytes:
    """What the supervisor said, as text for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        whole: Overview = self._snapshot["overview"]
        # accepted = rows + dead + discarded + missing + in log + parked + spooled
        for name, text in (
            ("accepted", "Events that were acknowledged, or are on their way to a row."),
            ("rows", "Events that became rows."),
            ("dead", "Events that became dead letters, each time."),
            (
                "discarded",
                "Dead letters sent again that were dead no more, and events of erased leads.",
            ),
            ("missing", "Events missing from the log, that an operator went on without."),
            ("unconfirmed", "Hits answered before they were durable."),
            ("lost", "Hits that neither log nor spool could take."),
        ):
            yield CounterMetricFamily(f"{_PREFIX}_{name}_events", text, getattr(whole, name))
        for name, text in (
            ("in_log", "Events in the log that are not rows yet, but for the parked."),
            ("parked", "Hits over their campaign's rate, waiting for its budget."),
            ("spooled", "Events that wait on a node's disk for the log."),
            ("buffered", "Events in memory, not acknowledged."),
        ):
            yield GaugeMetricFamily(f"{_PREFIX}_{name}_events", text, getattr(whole, name))
        yield GaugeMetricFamily(
            f"{_PREFIX}_uncounted_events",
            "Rows that are not in the figures of their campaign yet, about.",
            sum(writer["rollups"]["behind"] for writer in self._known("writers")),
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_backpressure_level",
            "0 normal, 1 warning, 2 critical, 3 emergency.",
            list(Level).index(self._snapshot["level"]),
        )
        # Both follow the load: pipeline/batching.py, and GatherPolicy in pipeline/gather.py.
        yield GaugeMetricFamily(
            f"{_PREFIX}_flush_events",
            "How many events a writer stores in one transaction at most now.",
            min((writer["batch_events"] for writer in self._known("writers")), default=0),
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_linger_seconds",
            "How far apart a replica begins its calls to a shard now.",
            max((report.linger_s for report in self._snapshot["replicas"]), default=0.0),
        )
        breakers = GaugeMetricFamily(
            f"{_PREFIX}_circuit_breaker", "0 closed, 1 half open, 2 open.", labels=["name"]
        )
        for name, part in (("redis", "shards"), ("database", "writers")):
            state = worst_breaker(self._known(part))["state"]
            breakers.add_metric([name], _BREAKER_STATES.index(state))
        yield breakers

    def _known(self, part: str) -> list[Mapping[str, Any]]:
        """What those that are not silent said."""
        return [status for status in self._snapshot[part] if status is not None]


class Metrics:
    """
    Answers Prometheus.

    Args:
        ports: What the replica works with.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def show(self, request: Request) -> Response:
        """``GET /metrics``: of the whole cluster, whichever replica answers."""
        self._ports.access.require(request.scope, "read")
        text = await self._ports.metrics()
        if text is None:
            body = {"success": False, "error": "the supervisor does not answer"}
            return JSONResponse(body, 503, {"Retry-After": "1"})
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
