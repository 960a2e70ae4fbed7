"""What each setting is by default, what it may be, and what does not fit together."""

from __future__ import annotations

import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.errors import SettingsError
from ray_tracking.settings import PRESETS, Settings, Thresholds
from ray_tracking.settings.data_dir import resolve_data_dir

GIB = 1024**3

# name, default, high_volume, memory_optimized: the documented table.
TABLE = [
    ("max_batch_size", 1000, 5000, 1000),
    ("batch_processing_interval_ms", 100, 25, 100),
    ("realtime_threshold", 100, 100, 100),
    ("max_buffer_size", 10_000, 50_000, 5000),
    ("buffer_flush_interval_ms", 50, 10, 50),
    ("burst_delay_ms", 0, 5000, 0),
    ("buffer_compression_enabled", False, False, True),
    ("deduplication_window_ms", 60_000, 60_000, 10_000),
    ("deduplication_cache_size", 100_000, 500_000, 50_000),
    ("max_events_per_window", 10_000, 100_000, 10_000),
    ("rate_limit_window_ms", 60_000, 60_000, 60_000),
    ("burst_capacity", 500, 2000, 500),
    (
        "backpressure_thresholds",
        Thresholds(warning=5000, critical=8000, emergency=9500),
        Thresholds(warning=25_000, critical=40_000, emergency=47_000),
        Thresholds(warning=2500, critical=4000, emergency=4750),
    ),
]

OTHERS = {
    "preset": "default",
    "host": "127.0.0.1",
    "port": 8000,
    "data_dir": Path(".ray_tracking"),
    "listener": "replica",
    "partitions": 16,
    "shards": None,
    "writers": 1,
    "ingress_replicas": None,
    "failpoints_dir": None,
    "answer_timeout_ms": 50,
    "max_backlog_bytes": 4 * GIB,
    "spool": True,
    "spool_max_bytes": 4 * GIB,
    "idempotency_window_ms": None,
    "processing_mode": "auto",
    "redis_prefix": "rt:",
    "redis_safety": "refuse",
    "redis_url": None,
    "redis_host": None,
    "redis_port": None,
    "redis_password": None,
    "database_url": None,
    "database_schema": "public",
    "email_encryption_key": None,
    "base_url": None,
    "trusted_proxies": (),
    "cors_origins": (),
    "max_connections": 10_000,
    "max_connections_per_client": 1000,
    "max_requests_per_client": None,
    "raw_retention_days": 90,
    "validation_rules": (),
    "geo_database": None,
    "metrics_interval_s": 10,
    "health_check_interval_s": 30,
    "api_keys": (),
    "log_level": "info",
    "otlp_endpoint": None,
}

SERVERS = {"database_url": "postgresql://db/x", "redis_url": "redis://cache"}


def load(**args: Any) -> Settings:
    return Settings.load(args, env={})


@pytest.mark.parametrize(("name", "default", "high_volume", "memory_optimized"), TABLE)
def test_every_tuned_setting_has_the_documented_value_in_each_preset(
    name: str, default: Any, high_volume: Any, memory_optimized: Any
) -> None:
    assert getattr(load(), name) == default
    assert getattr(load(preset="high_volume"), name) == high_volume
    assert getattr(load(preset="memory_optimized"), name) == memory_optimized
    assert getattr(load(preset="production", **SERVERS), name) == default


def test_every_other_setting_has_the_documented_default() -> None:
    assert {name: getattr(Settings(), name) for name in OTHERS} == OTHERS


def test_no_setting_is_missing_from_the_two_tables() -> None:
    assert set(Settings.model_fields) == {row[0] for row in TABLE} | set(OTHERS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_never_overrides_what_the_user_wrote(preset: str) -> None:
    settings = load(preset=preset, max_batch_size=7, **SERVERS)

    assert settings.max_batch_size == 7
    assert settings.model_fields_set == {"preset", "max_batch_size", *SERVERS}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("partitions", 0, "at least 1"),
        ("partitions", 1025, "at most 1024"),
        ("partitions", True, "number"),
        ("partitions", None, "whole number"),
        ("port", 65_536, "at most 65535"),
        ("host", "a b", "host name"),
        ("host", "127.0.0.1:8000", "without a port"),
        ("listener", "proxy", "'replica' or 'serve'"),
        ("processing_mode", "fast", "'auto', 'realtime', 'batch' or 'hybrid'"),
        ("preset", "huge", "'high_volume'"),
        ("redis_safety", "ignore", "'refuse' or 'warn'"),
        ("redis_prefix", "", "without spaces and braces"),
        ("redis_prefix", "a b", "without spaces and braces"),
        ("redis_prefix", "{a}", "without spaces and braces"),
        ("database_schema", "my-schema", "plain name"),
        ("database_schema", "pg_mine", "plain name"),
        ("burst_capacity", 0, "at least 1"),
        ("max_batch_size", "many", "whole number"),
        ("max_batch_size", 1.5, "whole number"),
        ("rate_limit_window_ms", -1, "at least 1"),
        ("metrics_interval_s", 0, "more than 0"),
        ("metrics_interval_s", float("nan"), "finite|more than 0"),
        ("max_backlog_bytes", "4 potatoes", "4GiB"),
        ("spool", "maybe", "on or off"),
        ("trusted_proxies", ["10.0.0.1/8"], "host bits"),
        ("trusted_proxies", [7], "network"),
        ("trusted_proxies", {"a": 1}, "list"),
        ("cors_origins", ["app.example.com"], "origin"),
        ("cors_origins", ["https://app.example.com/path"], "origin"),
        ("validation_rules", ["mypkg.rules"], "dotted path"),
        ("base_url", "t.example.com", "absolute"),
        ("base_url", "https://t.example.com/?a=1", "without query"),
        ("data_dir", "", "directory"),
        ("log_level", "loud", "'debug'"),
        ("raw_retention_days", 0, "at least 1"),
        ("backpressure_thresholds", {"warning": 2, "critical": 2, "emergency": 3}, "<"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line_with_name_value_and_remedy(
    name: str, value: Any, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: value})

    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(name)
    assert repr(value) in text or (isinstance(value, list) and repr(value[0]) in text)
    assert re.search(allowed, text)


def test_an_unknown_setting_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"maxBatchSize: unknown .* max_batch_size"):
        load(maxBatchSize=3)


def test_ray_serve_s_own_validation_of_the_args_gives_the_same_line() -> None:
    with pytest.raises(SettingsError, match=r"partitions: 0 is not possible"):
        Settings.model_validate({"partitions": 0})


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * GIB), ("1.5 GiB", 3 * GIB // 2), ("10MB", 10**7), ("7", 7), (7, 7), ("2k", 2000)],
)
def test_sizes_are_numbers_or_as_people_write_them(text: Any, size: int) -> None:
    assert load(max_backlog_bytes=text).max_backlog_bytes == size


def test_names_of_modes_are_read_in_any_case() -> None:
    settings = load(processing_mode="HYBRID", log_level="WARN", preset="High_Volume")

    assert (settings.processing_mode, settings.log_level) == ("hybrid", "warning")
    assert settings.max_batch_size == 5000


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.integers(1, 200))
def test_thresholds_ascend_and_end_within_the_buffer(
    warning: int, critical: int, emergency: int, buffer: int
) -> None:
    thresholds = {"warning": warning, "critical": critical, "emergency": emergency}
    if warning < critical < emergency <= buffer:
        load(backpressure_thresholds=thresholds, max_buffer_size=buffer)
    else:
        with pytest.raises(SettingsError, match=r"backpressure_thresholds"):
            load(backpressure_thresholds=thresholds, max_buffer_size=buffer)


def test_more_shards_than_partitions_are_refused_but_the_default_adapts() -> None:
    assert load(partitions=1).shard_count == 1
    with pytest.raises(SettingsError, match=r"shards: 2 .* partitions \(1\)"):
        load(partitions=1, shards=2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "tracking.example.com"])
def test_without_keys_only_loopback_is_bound(host: str) -> None:
    with pytest.raises(SettingsError, match=r"host: .* without api_keys"):
        load(host=host)
    assert load(host=host, api_keys=["k:ingest"]).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert load(host=host).host == host.strip("[]")


def test_production_starts_no_servers_of_its_own() -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL: must be set.*REDIS_URL or REDIS_HOST"):
        load(preset="production")

    settings = load(preset="production", **SERVERS)
    assert settings.autoscaling
    assert not settings.embedded_postgres
    assert not settings.embedded_valkey
    assert load().embedded_postgres
    assert load().embedded_valkey


@pytest.mark.parametrize(
    ("args", "url"),
    [
        ({}, None),
        ({"redis_host": "cache"}, "redis://cache:6379"),
        ({"redis_host": "::1", "redis_port": 7}, "redis://[::1]:7"),
        ({"redis_host": "cache", "redis_password": "a/b@c"}, "redis://:a%2Fb%40c@cache:6379"),
        ({"redis_url": "rediss://cache:7/2"}, "rediss://cache:7/2"),
        ({"redis_url": "redis://me@cache/2", "redis_password": "pw"}, "redis://me:pw@cache/2"),
    ],
)
def test_redis_is_named_by_url_or_by_host(args: dict[str, Any], url: str | None) -> None:
    assert load(**args).redis_connection_url == url


@pytest.mark.parametrize(
    "args",
    [
        {"redis_url": "redis://a", "redis_host": "b"},
        {"redis_url": "redis://a", "redis_port": 1},
        {"redis_url": "redis://:x@a", "redis_password": "y"},
        {"redis_port": 6379},
        {"redis_password": "y"},
    ],
)
def test_redis_is_not_named_twice_or_by_halves(args: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"redis_(host|port|password): "):
        load(**args)


def test_prisma_s_schema_parameter_is_pointed_to_our_setting() -> None:
    with pytest.raises(SettingsError, match=r"database_url: .*set database_schema instead"):
        load(database_url="postgresql://u:p@db/x?schema=mine")


def test_the_idempotency_window_is_the_dedup_window_unless_set() -> None:
    assert load(deduplication_window_ms=5).effective_idempotency_window_ms == 5
    assert load(idempotency_window_ms=7).effective_idempotency_window_ms == 7


def test_tracking_links_begin_with_the_address_unless_a_base_url_is_set() -> None:
    assert load().public_base_url == "http://127.0.0.1:8000"
    assert load(host="::1", port=9).public_base_url == "http://[::1]:9"
    assert load(host="0.0.0.0", api_keys="k:read").public_base_url == "http://127.0.0.1:8000"
    assert load(base_url="https://t.example.com/x/").public_base_url == "https://t.example.com/x"


def test_ingress_replicas_are_the_cpus_and_at_most_four_unless_set() -> None:
    assert 1 <= load().ingress_replica_count <= 4
    assert load(ingress_replicas=9).ingress_replica_count == 9
    assert load().postgres_buffers_mib is None
    assert load(preset="memory_optimized").postgres_buffers_mib == 64


@pytest.mark.parametrize(
    ("data_dir", "cwd", "found"),
    [
        (".data", "/srv/app", "/srv/app/.data"),
        ("/var/x", "/srv/app", "/var/x"),
        (".data", "/tmp/ray/session_2026-11-23_19-15-30_768367_4405/a/x", "/home/.data"),
        ("/tmp/ray/session_latest/x", "/srv", "/tmp/ray/session_latest/x"),
        (".data", "/srv/session_notes", "/srv/session_notes/.data"),
    ],
)  # fmt: skip
def test_a_relative_data_directory_never_lies_in_a_ray_session_folder(
    data_dir: str, cwd: str, found: str
) -> None:
    assert resolve_data_dir(Path(data_dir), Path(cwd), Path("/home")) == Path(found)


def test_settings_travel_between_processes_and_cannot_be_changed() -> None:
    settings = load(api_keys="a:read", database_url="postgresql://u:p@db/x")
    travelled = pickle.loads(pickle.dumps(settings))

    assert travelled == settings
    assert travelled.model_fields_set == settings.model_fields_set
    assert travelled.database_connection_url == "postgresql://u:p@db/x"
    with pytest.raises(ValueError, match=r"frozen"):
        travelled.port = 1


def test_spans_need_the_extra_and_the_refusal_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(otlp_endpoint="http://collector:4318/").otlp_endpoint == "http://collector:4318"
    with pytest.raises(SettingsError, match=r"otlp_endpoint: .*http"):
        load(otlp_endpoint="collector:4318")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"otlp_endpoint: .*ray-tracking\[otel\]"):
        load(otlp_endpoint="http://collector:4318")


def test_importing_the_settings_imports_no_ray() -> None:
    code = "import sys, ray_tracking.settings; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
