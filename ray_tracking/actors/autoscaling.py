"""
Serve's autoscaling policy for ingress replicas: hands what they record to
:func:`~ray_tracking.pipeline.scaling.wanted_replicas`.

Serve keeps the number within ``min_replicas`` and ``max_replicas``, and waits for
``upscale_delay_s`` or ``downscale_delay_s`` before it follows. It runs in Serve's controller.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from ray.serve.config import AutoscalingContext

from ray_tracking.pipeline.scaling import ReplicaLimits, ReplicaLoad, wanted_replicas


def recorded(load: ReplicaLoad) -> dict[str, float]:
    """A load as ``record_autoscaling_stats`` gives it to Serve."""
    return asdict(load)


class IngressPolicy:
    """
    What ``policy_function`` names.

    Args:
        limits: Those of :class:`~ray_tracking.pipeline.scaling.ReplicaLimits`, as
            ``policy_kwargs`` gives them.
    """

    def __init__(self, **limits: float) -> None:
        self._limits = ReplicaLimits(**limits)

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """The number wanted, and no state to be kept."""
        metrics = context.aggregated_metrics or {}
        names = [field.name for field in fields(ReplicaLoad)]
        replicas = {replica for name in names for replica in metrics.get(name, {})}
        loads = [
            ReplicaLoad(**{name: metrics.get(name, {}).get(replica, 0.0) for name in names})
            for replica in replicas
        ]
        current = context.current_num_replicas
        return wanted_replicas(loads, self._limits, current=current), {}
