"""
What ``serve run`` builds: the composition root.

``build`` is annotated with :class:`Settings`, so Serve validates the YAML's ``args``
into it. For that the annotation must be a class, not a string: no
``from __future__ import annotations`` here.
"""

from typing import Any
from uuid import uuid4

from ray import serve
from ray.serve import Application

from ray_tracking.ingress import IngressReplica
from ray_tracking.settings import Settings
from ray_tracking.sources.rules import load_rules
from ray_tracking.supervision import SupervisorReplica

_COMMON: dict[str, Any] = {
    # Our parts share the cores as they need them; a cluster's YAML may reserve some.
    "ray_actor_options": {"num_cpus": 0},
    "health_check_period_s": 1,
    "health_check_timeout_s": 10,
    "graceful_shutdown_wait_loop_s": 0.1,
    # Of one replica too the successor is there before it goes; of many, one at a time.
    "max_surge_percent": 20,
}

SupervisorDeployment = serve.deployment(
    name="Supervisor",
    num_replicas=1,
    max_ongoing_requests=100,
    graceful_shutdown_timeout_s=25,
    **_COMMON,
)(SupervisorReplica)

Ingress = serve.deployment(
    name="Ingress",
    max_ongoing_requests=10_000,
    graceful_shutdown_timeout_s=10,
    **_COMMON,
)(serve.ingress()(IngressReplica))


def build(settings: Settings) -> Application:
    """
    The application, from the ``args`` of the Serve YAML.

    Raises:
        SettingsError: If a setting is unknown or impossible.
    """
    settings = settings.with_environment()
    load_rules(settings.validation_rules)
    ingress = Ingress
    if not settings.autoscaling:
        ingress = ingress.options(num_replicas=settings.ingress_replica_count)
    # Of this build, so that while another replaces it, each ingress asks its own supervisor.
    generation = uuid4().hex
    supervisor = SupervisorDeployment.bind(settings, generation)
    application: Application = ingress.bind(settings, supervisor, generation)
    return application
