"""The environment wins, under its own names; and no secret is ever shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.errors import SettingsError
from ray_tracking.settings import Settings, Thresholds

THRESHOLDS = {"warning": 1, "critical": 2, "emergency": 3}
KEY = "k" * 32


def test_the_environment_wins_over_the_file_and_the_file_over_the_preset() -> None:
    settings = Settings.load(
        {"preset": "high_volume", "port": 1, "max_batch_size": 2}, {"TRACKING_PORT": "3"}
    )

    assert (settings.port, settings.max_batch_size, settings.burst_capacity) == (3, 2, 2000)
    assert settings.source_of("port") == "environment"
    assert settings.source_of("max_batch_size") == "file"
    assert settings.source_of("burst_capacity") == "preset"
    assert settings.source_of("data_dir") == "default"
    assert settings.source_of("spool") == "default"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_read_from_the_environment_under_its_name_in_capitals(name: str) -> None:
    texts = {
        "preset": "high_volume", "host": "::1", "port": "9", "listener": "serve",
        "base_url": "https://t.example.com", "trusted_proxies": "10.0.0.0/8, ::1/128",
        "cors_origins": '["https://a.example.com"]', "api_keys": "a:read,b:ingest+admin",
        "data_dir": "/var/x", "database_url": "postgres://db/x", "database_schema": "mine",
        "redis_url": "redis://cache", "redis_host": "cache", "redis_prefix": "x:",
        "redis_safety": "warn", "email_encryption_key": KEY, "processing_mode": "BATCH",
        "max_buffer_size": "20000", "buffer_compression_enabled": "on",
        "backpressure_thresholds": json.dumps(THRESHOLDS), "max_backlog_bytes": "1GiB",
        "spool": "off", "spool_max_bytes": "5", "validation_rules": "mypkg.rules:check",
        "geo_database": "/x.mmdb", "log_level": "debug",
        "otlp_endpoint": "http://127.0.0.1:4318",
    }  # fmt: skip
    env = {"TRACKING_" + name.upper(): texts.get(name, "3")}
    if name in ("redis_port", "redis_password"):
        env["TRACKING_REDIS_HOST"] = "cache"

    settings = Settings.load(env=env)

    assert settings.source_of(name) == "environment"
    assert getattr(settings, name) != getattr(Settings(), name)


def test_the_names_that_users_already_have_are_read() -> None:
    settings = Settings.load(
        env={
            "DATABASE_URL": "postgresql://u:p@db/x",
            "REDIS_HOST": "cache",
            "REDIS_PORT": "7",
            "REDIS_PASSWORD": "pw",
            "EMAIL_ENCRYPTION_KEY": f"{KEY}, {KEY.upper()}",
            "LOG_LEVEL": "ERROR",
            "TRACKING_BASE_URL": "https://t.example.com/",
        }
    )

    assert settings.database_connection_url == "postgresql://u:p@db/x"
    assert settings.redis_connection_url == "redis://:pw@cache:7"
    assert settings.encryption_keys == (KEY, KEY.upper())
    assert settings.log_level == "error"
    assert settings.public_base_url == "https://t.example.com"


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8,::1/128", '["10.0.0.0/8", "::1/128"]', " 10.0.0.0/8 , ::1/128, "]
)
def test_lists_are_json_or_separated_by_commas(text: str) -> None:
    settings = Settings.load(env={"TRACKING_TRUSTED_PROXIES": text})

    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


def test_api_keys_carry_their_scopes_and_may_contain_colons() -> None:
    settings = Settings.load(env={"TRACKING_API_KEYS": "a:b:ingest, c:read+admin"})

    assert [(key.key.get_secret_value(), sorted(key.scopes)) for key in settings.api_keys] == [
        ("a:b", ["ingest"]),
        ("c", ["admin", "read"]),
    ]


def test_thresholds_are_json() -> None:
    settings = Settings.load(env={"TRACKING_BACKPRESSURE_THRESHOLDS": json.dumps(THRESHOLDS)})
    assert settings.backpressure_thresholds == Thresholds(warning=1, critical=2, emergency=3)

    with pytest.raises(SettingsError, match=r"TRACKING_BACKPRESSURE_THRESHOLDS: .* must be JSON"):
        Settings.load(env={"TRACKING_BACKPRESSURE_THRESHOLDS": "1,2,3"})
    with pytest.raises(SettingsError, match=r"_THRESHOLDS\.critical: is missing"):
        Settings.load(env={"TRACKING_BACKPRESSURE_THRESHOLDS": '{"warning": 1, "emergency": 2}'})


def test_an_unknown_variable_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env={"TRACKING_MAX_BATCHSIZE": "s3cret"})

    assert str(caught.value) == (
        "TRACKING_MAX_BATCHSIZE: unknown setting; did you mean TRACKING_MAX_BATCH_SIZE?"
    )


def test_a_wrong_variable_is_named_as_the_user_wrote_it() -> None:
    with pytest.raises(SettingsError, match=r"^TRACKING_PORT: 'x' is not possible"):
        Settings.load({"port": 8000}, {"TRACKING_PORT": "x"})
    with pytest.raises(SettingsError, match=r"^REDIS_PORT: 'x' is not possible"):
        Settings.load(env={"REDIS_HOST": "cache", "REDIS_PORT": "x"})
    with pytest.raises(SettingsError, match=r"^TRACKING_MAX_BUFFER_SIZE: 9 .*emergency"):
        Settings.load(env={"TRACKING_MAX_BUFFER_SIZE": "9"})
    with pytest.raises(SettingsError, match=r"^TRACKING_HOST: '0.0.0.0' is not possible without"):
        Settings.load(env={"TRACKING_HOST": "0.0.0.0"})


def test_two_names_of_one_setting_may_not_differ() -> None:
    Settings.load(env={"LOG_LEVEL": "info", "TRACKING_LOG_LEVEL": "info"})
    with pytest.raises(SettingsError, match=r"LOG_LEVEL and TRACKING_LOG_LEVEL differ"):
        Settings.load(env={"LOG_LEVEL": "info", "TRACKING_LOG_LEVEL": "debug"})


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.load({"port": 7}, {"TRACKING_PORT": " ", "DATABASE_URL": ""}).port == 7


def test_a_service_that_kubernetes_describes_is_not_a_setting() -> None:
    """A service called "tracking" or "redis" appears in the environment of every pod."""
    links = {
        "TRACKING_SERVICE_HOST": "10.0.0.7",
        "TRACKING_SERVICE_PORT_HTTP": "8000",
        "TRACKING_PORT": "tcp://10.0.0.7:8000",
        "TRACKING_PORT_8000_TCP_ADDR": "10.0.0.7",
        "REDIS_PORT": "tcp://10.0.0.8:6379",
    }

    settings = Settings.load(env={"KUBERNETES_SERVICE_HOST": "10.0.0.1", **links})
    assert (settings.port, settings.embedded_valkey) == (8000, True)
    with pytest.raises(SettingsError, match=r"TRACKING_PORT_8000_TCP_ADDR"):
        Settings.load(env=links)


def test_redis_in_the_environment_replaces_redis_in_the_file() -> None:
    by_url = Settings.load({"redis_host": "old", "redis_port": 1}, {"REDIS_URL": "redis://new"})
    by_host = Settings.load({"redis_url": "redis://old"}, {"REDIS_HOST": "new"})

    assert by_url.redis_connection_url == "redis://new"
    assert by_host.redis_connection_url == "redis://new:6379"
    with pytest.raises(SettingsError, match=r"^REDIS_HOST: not possible beside REDIS_URL"):
        Settings.load(env={"REDIS_URL": "redis://a", "REDIS_HOST": "b"})


def test_the_environment_may_supply_what_the_file_alone_lacks() -> None:
    """Serve validates the args alone, before our builder sees them."""
    given_by_serve = Settings.model_validate({"preset": "production", "host": "0.0.0.0"})
    env = {
        "DATABASE_URL": "postgresql://db/x",
        "REDIS_URL": "redis://cache",
        "TRACKING_API_KEYS": "k:ingest",
    }

    assert given_by_serve.with_environment(env) == Settings.load(
        {"preset": "production", "host": "0.0.0.0"}, env
    )
    with pytest.raises(SettingsError, match=r"TRACKING_API_KEYS"):
        given_by_serve.with_environment({})


def test_a_preset_in_the_environment_replaces_the_file_s_preset_but_not_its_values() -> None:
    settings = Settings.model_validate({"preset": "memory_optimized", "burst_capacity": 5})
    settings = settings.with_environment({"TRACKING_PRESET": "high_volume"})

    assert (settings.max_batch_size, settings.burst_capacity) == (5000, 5)
    assert not settings.buffer_compression_enabled


def test_applying_the_environment_again_changes_nothing_even_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    env = {"TRACKING_PORT": "9", "REDIS_HOST": "cache", "TRACKING_API_KEYS": "k:read"}
    once = Settings.load({"partitions": 1, "trusted_proxies": ["10.0.0.0/8"]}, env)
    monkeypatch.chdir(tmp_path)

    assert once.with_environment(env) == once
    assert once.with_environment({}) == once


def test_the_process_s_own_environment_is_read_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", {"TRACKING_PORT": "9"})

    assert Settings.load().port == 9
    assert Settings().with_environment().port == 9
    assert Settings().port == 8000


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_no_secret_is_ever_shown_whether_it_is_accepted_or_refused(tail: str) -> None:
    secret = f"s3cret{tail}s3cret"
    variables = {
        "DATABASE_URL": [f"postgres://u:{secret}@db/x", f"postgres://u:12/{secret}@db/x",
                         f"postgres://db/x?password={secret}", f"mysql://u:{secret}@db/x"],
        "REDIS_URL": [f"redis://:{secret}@cache", f"http://{secret}"],
        "REDIS_PASSWORD": [secret],
        "EMAIL_ENCRYPTION_KEY": [secret, secret * 5, f"x://{secret * 5}"],
        "TRACKING_API_KEYS": [f"{secret}:read", f"{secret}:write", secret,
                              f'["{secret}"', f"[{{{secret}}}]"],
    }  # fmt: skip
    for name, texts in variables.items():
        for text in texts:
            env = {name: text, **({"REDIS_HOST": "h"} if name == "REDIS_PASSWORD" else {})}
            try:
                settings = Settings.load(env=env)
            except SettingsError as error:
                shown = str(error) + repr(error)
            else:
                shown = repr(settings) + str(settings) + json.dumps(settings.public_dict())
                shown += str(settings.model_dump()) + settings.model_dump_json()
            assert "s3cret" not in shown


def test_what_is_shown_of_a_secret_helps_to_recognise_it() -> None:
    settings = Settings.load(
        env={
            "DATABASE_URL": "postgresql://u:pw@db:5432/x",
            "REDIS_HOST": "cache",
            "REDIS_PASSWORD": "pw",
            "TRACKING_API_KEYS": "one:read+ingest",
        }
    )
    shown = settings.public_dict()

    assert list(shown) == list(Settings.model_fields)
    assert shown["database_url"] == "postgresql://u:***@db:5432/x"
    assert shown["redis_password"] == "***"
    assert shown["api_keys"] == ["***:ingest+read"]
    assert shown["email_encryption_key"] is None
