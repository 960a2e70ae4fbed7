"""cluster.yaml and cluster.local.yaml, as Ray's launcher reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_tracking.settings import Settings, environment

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "cluster.local.yaml")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


@pytest.mark.parametrize("name", FILES)
def test_rays_launcher_takes_it(name: str) -> None:
    prepared = prepare_config(read(name))
    validate_config(prepared)
    workers = [kind for kind in prepared["available_node_types"].values() if kind["max_workers"]]
    assert [kind["min_workers"] for kind in workers] == [2]


def test_a_field_that_ray_does_not_know_is_refused() -> None:
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config(read("cluster.yaml") | {"workers": 3}))


@pytest.mark.parametrize("name", FILES)
def test_every_node_is_started_with_the_environment_that_it_is_given(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/ray_tracking.env"] == "ray_tracking.env"
    for role in ("head", "worker"):
        start = config[f"{role}_start_ray_commands"][-1]
        assert start.index(". ~/ray_tracking.env") < start.index("ray start")


def test_the_environment_that_it_asks_for_lets_production_start() -> None:
    asked = re.findall(r"^#\s+([A-Z_]+)=", (ROOT / "cluster.yaml").read_text(), re.MULTILINE)
    ours = [name for name in asked if not name.startswith("RAY_")]
    known = {*environment.PLAIN_NAMES.values()}
    assert all(name in known or name.startswith(environment.PREFIX) for name in ours)
    values = {
        "DATABASE_URL": "postgresql://user:secret@db.example.com/tracking",
        "REDIS_URL": "redis://log.example.com:6379/0",
        "EMAIL_ENCRYPTION_KEY": "x" * 32,
        "TRACKING_API_KEYS": "a-key:ingest",
        "TRACKING_BASE_URL": "https://t.example.com",
        "TRACKING_TRUSTED_PROXIES": "10.0.0.0/24",
    }
    assert set(ours) == set(values)
    serve = yaml.safe_load((ROOT / "serve_configs" / "production.yaml").read_text())
    Settings.load(serve["applications"][0]["args"], env=values)


@pytest.mark.parametrize("name", FILES)
def test_the_files_that_it_names_are_there(name: str) -> None:
    names = r"serve_configs/\w+\.yaml|requirements\.lock|cluster(?:\.local)?\.yaml"
    for path in re.findall(names, (ROOT / name).read_text()):
        assert (ROOT / path).exists(), path
