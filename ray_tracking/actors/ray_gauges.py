"""
The gauges of ``/metrics`` in Ray's own metrics too, under the same names.

Ray's agents put ``ray_`` before each name and keep the last value of every set of labels, so
what is about a process, and would stay when that is gone, is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from ray_tracking.pipeline.gauges import Kind, families

_RAYS_PREFIX = "ray_"


class RayGauges:
    """Of one process, which is the supervisor's."""

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}

    def set(self, snapshot: Mapping[str, Any]) -> None:
        """Have Ray show what the supervisor sees."""
        for name, kind, text, samples in families(snapshot):
            if kind is not Kind.GAUGE or not samples or "part" in samples[0][0]:
                continue
            if name not in self._gauges:
                labels = tuple(samples[0][0])
                self._gauges[name] = Gauge(name.removeprefix(_RAYS_PREFIX), text, labels)
            for tags, value in samples:
                self._gauges[name].set(value, tags)
