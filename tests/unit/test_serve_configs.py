"""Every shipped Serve YAML is one that Ray, our strict check and the settings accept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ray_tracking.cli.serve_file import DEPLOYMENTS, IMPORT_PATH, check_listener, read_config
from ray_tracking.settings import PRESETS, Settings

pytestmark = pytest.mark.filterwarnings(
    # Ray's own, when ray.serve.schema is imported.
    "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
)

FILES = sorted((Path(__file__).parents[2] / "serve_configs").glob("*.yaml"))

#: What production.yaml asks of the nodes' environment.
ENVIRONMENT = {
    "DATABASE_URL": "postgresql://u:p@db/x",
    "REDIS_URL": "redis://cache",
    "EMAIL_ENCRYPTION_KEY": "k" * 32,
    "TRACKING_API_KEYS": "k:ingest+read+admin",
    "TRACKING_BASE_URL": "https://t.example.com",
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_there_is_one_file_for_each_preset() -> None:
    presets = {read_config(path).args["preset"] for path in FILES}

    assert {path.stem for path in FILES} == {
        "local", "production", "high_volume", "memory_optimized"
    }  # fmt: skip
    assert presets == set(PRESETS)


@each_file
def test_ray_accepts_the_file_and_finds_our_application(path: Path) -> None:
    from ray.serve.config import ProxyLocation
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))

    assert config.proxy_location == ProxyLocation.Disabled
    assert config.logging_config is not None
    assert not config.logging_config.enable_access_log
    [application] = config.applications
    assert (application.name, application.route_prefix) == ("tracking", "/")
    assert application.import_path == IMPORT_PATH
    assert set(application.deployment_names) <= set(DEPLOYMENTS)


@each_file
def test_our_strict_check_and_the_settings_accept_the_file(path: Path) -> None:
    args, serve = read_config(path)
    settings = Settings.model_validate(args).with_environment(
        ENVIRONMENT if args["preset"] == "production" else {}
    )

    assert serve is not None
    check_listener(serve, settings)
    assert serve["http_options"] == {"host": settings.host, "port": settings.port}


@each_file
def test_only_production_leaves_this_machine_and_needs_anything_prepared(path: Path) -> None:
    args, _ = read_config(path)
    production = args["preset"] == "production"
    settings = Settings.load(args, ENVIRONMENT if production else {})

    assert settings.embedded_postgres == settings.embedded_valkey == (not production)
    assert (settings.host == "127.0.0.1") == (not production)
    # One data directory serves all of them, and its partitions are fixed at first start.
    assert settings.partitions == 16


def test_production_scales_by_our_policy() -> None:
    """As Serve's controller resolves it, with the figures of two replicas."""
    from ray.serve.config import AutoscalingConfig

    _, serve = read_config(next(path for path in FILES if path.stem == "production"))
    assert serve is not None
    (ingress,) = [
        deployment
        for deployment in serve["applications"][0]["deployments"]
        if deployment["name"] == "Ingress"
    ]
    config = AutoscalingConfig.model_validate(ingress["autoscaling_config"])
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    seen = {
        "requests_per_s": {"a": 4000.0, "b": 5000.0},
        "loop_lag_ms": {"a": 3.0, "b": 4.0},
    }

    def decided(metrics: Any) -> Any:
        return policy(SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=2))

    assert decided(seen) == (3.0, {})
    assert decided(None) == decided({}) == (2, {})
    assert config.min_replicas == 2
