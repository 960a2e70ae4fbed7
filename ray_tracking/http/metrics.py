"""``GET /metrics``: the books and the state of the whole cluster as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ray_tracking import __version__
from ray_tracking.http.ports import Ports
from ray_tracking.pipeline.gauges import PREFIX, Kind, families
from ray_tracking.pipeline.traffic import BUCKETS_MS

_KINDS = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}


def exposition(snapshot: Mapping[str, Any]) -> bytes:
    """What the supervisor said, as text for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(f"{PREFIX}_build", "What runs.", {"version": __version__})
        for name, kind, text, samples in families(self._snapshot):
            names = list(samples[0][0]) if samples else []
            metric = _KINDS[kind](name, text, labels=names)
            for labels, value in samples:
                metric.add_metric(list(labels.values()), value)
            yield metric
        yield _answers(self._snapshot["counted"])


def _answers(counted: Mapping[str, int]) -> Metric:
    ends = [*(str(ms / 1000) for ms in BUCKETS_MS), "+Inf"]
    counts = [counted[f"answers_{index}"] for index in range(len(ends))]
    return HistogramMetricFamily(
        f"{PREFIX}_answer_seconds",
        "How long events took from their request to the acknowledgement or refusal.",
        buckets=list(zip(ends, accumulate(counts), strict=True)),
        sum_value=counted["answer_ms"] / 1000,
    )


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
