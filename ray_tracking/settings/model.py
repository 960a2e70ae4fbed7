"""
The table of settings.

Each field stands in the Serve YAML's ``args`` under its own name, and in the
environment as ``TRACKING_`` and the name in capitals. Every single value is checked
by every way of making a :class:`Settings`; whether they fit together is checked by
:meth:`Settings.load` and :meth:`Settings.with_environment`, which know them all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ray_tracking.errors import SettingsError
from ray_tracking.settings import environment, kinds
from ray_tracking.settings.data_dir import DEFAULT_DATA_DIR, resolve_data_dir
from ray_tracking.settings.explain import SECRETS, explain
from ray_tracking.settings.kinds import Bytes, Count, Delay, Lower, Milliseconds, Seconds
from ray_tracking.settings.masking import masked
from ray_tracking.settings.presets import PRESETS, PresetName
from ray_tracking.settings.whole import contradictions

Source = Literal["default", "preset", "file", "environment", "user_config"]

#: Two ways to name one server: the environment's way replaces the file's as a whole.
_REDIS_ADDRESS = {
    "redis_url": ("redis_host", "redis_port", "redis_password"),
    "redis_host": ("redis_url",),
}


class Settings(BaseModel):
    """Everything a user may set. Frozen, picklable, and free of secrets when printed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    preset: Annotated[PresetName, Lower] = "default"

    # Where we listen, and who may call.
    host: kinds.Host = "127.0.0.1"
    port: kinds.Port = 8000
    #: `replica`: each replica listens itself. `serve`: behind Serve's own proxy.
    listener: Annotated[Literal["replica", "serve"], Lower] = "replica"
    #: Under which tracking links are made. Unset: host and port.
    base_url: kinds.WebUrl | None = None
    trusted_proxies: kinds.Networks = ()
    cors_origins: kinds.Origins = ()
    #: Connections of each replica: all, and those of one address that is no trusted proxy.
    max_connections: Count = 10_000
    max_connections_per_client: Count = 1000
    #: Requests per second, for each client and replica; hits are never counted. Unset: any number.
    max_requests_per_client: Count | None = None
    api_keys: kinds.ApiKeys = ()

    # Where the data is. Unset URLs: servers of our own, in the data directory.
    data_dir: Annotated[Path, AfterValidator(lambda path: _not_empty(path))] = DEFAULT_DATA_DIR
    database_url: kinds.PostgresUrl | None = None
    database_schema: kinds.SchemaName = "public"
    redis_url: kinds.RedisUrl | None = None
    redis_host: kinds.Host | None = None
    redis_port: kinds.Port | None = None
    redis_password: SecretStr | None = None
    redis_prefix: kinds.RedisPrefix = "rt:"
    #: A Redis that may forget what it acknowledged: refuse to start, or only warn.
    redis_safety: Annotated[Literal["refuse", "warn"], Lower] = "refuse"
    email_encryption_key: kinds.EncryptionKeys | None = None
    raw_retention_days: kinds.Days = 90

    # How the work is divided.
    partitions: kinds.Parts = 16
    #: Unset: one for each two CPUs.
    shards: kinds.Parts | None = None
    writers: kinds.Parts = 1
    #: Unset: one for each CPU, at most 4.
    ingress_replicas: kinds.Parts | None = None

    # How events are taken, grouped and limited.
    processing_mode: Annotated[Literal["auto", "realtime", "batch", "hybrid"], Lower] = "auto"
    #: Events in a flush.
    max_batch_size: Count = 1000
    batch_processing_interval_ms: Milliseconds = 100
    #: Events per second.
    realtime_threshold: Count = 100
    #: Events in memory, in each process.
    max_buffer_size: Count = 10_000
    buffer_flush_interval_ms: Milliseconds = 50
    #: While a burst comes in, rows wait so long at most, so that it is taken sooner.
    burst_delay_ms: Delay = 0
    buffer_compression_enabled: bool = False
    deduplication_window_ms: Milliseconds = 60_000
    #: Ids, in each partition.
    deduplication_cache_size: Count = 100_000
    #: How long a caller's eventId is unique. Unset: the dedup window.
    idempotency_window_ms: Milliseconds | None = None
    #: For each campaign.
    max_events_per_window: Count = 10_000
    rate_limit_window_ms: Milliseconds = 60_000
    #: Single events, for each campaign and second.
    burst_capacity: Count = 500
    backpressure_thresholds: kinds.ThresholdsField = kinds.Thresholds(
        warning=5000, critical=8000, emergency=9500
    )
    answer_timeout_ms: Milliseconds = 50
    max_backlog_bytes: Bytes = 4 * 1024**3
    spool: bool = True
    spool_max_bytes: Bytes = 4 * 1024**3
    validation_rules: kinds.Rules = ()
    #: An mmdb file, to place addresses with.
    geo_database: Path | None = None

    # What is told about it.
    metrics_interval_s: Seconds = 10.0
    health_check_interval_s: Seconds = 30.0
    log_level: kinds.LogLevel = "info"
    #: Where spans of traced requests go, by OTLP over HTTP. Unset: there are none.
    otlp_endpoint: kinds.Collector | None = None
    #: Where :mod:`ray_tracking.failpoints` looks; for tests of crashes only.
    failpoints_dir: Path | None = None

    _from_environment: frozenset[str] = PrivateAttr(default=frozenset())
    _changed: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def load(
        cls, args: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None
    ) -> Self:
        """
        Merge default, preset, ``args`` and environment, and check the whole.

        Args:
            args: As in the Serve YAML.
            env: Read instead of the process's own environment.

        Raises:
            SettingsError: Something is unknown or impossible.
        """
        return cls._merge(dict(args or {}), environment.read(cls.model_fields, env))

    def with_environment(self, env: Mapping[str, str] | None = None) -> Self:
        """
        The same, for ``args`` that Ray Serve has already made a :class:`Settings` of.

        Safe to call again, also in another process: a data directory that was
        found once stays.
        """
        fields = type(self).model_fields
        explicit = {name: getattr(self, name) for name in fields if name in self.model_fields_set}
        found = environment.read(fields, env)
        settings = self._merge(explicit, found, self._from_environment)
        if self.data_dir.is_absolute() and "data_dir" not in found:
            settings = settings._derive(data_dir=self.data_dir)
        return settings

    @classmethod
    def _merge(
        cls,
        args: dict[str, Any],
        found: Mapping[str, tuple[str, str]],
        found_before: frozenset[str] = frozenset(),
    ) -> Self:
        for field, replaced in _REDIS_ADDRESS.items():
            if field in found:
                args = {name: value for name, value in args.items() if name not in replaced}
        names = {field: name for field, (name, _) in found.items()}
        values = args | {field: text for field, (_, text) in found.items()}
        settings = cls.model_validate(values, context={"names": names})
        settings._from_environment = frozenset(found) | (found_before & values.keys())
        wrong = list(contradictions(settings, names))
        if wrong:
            raise SettingsError("; ".join(wrong))
        return settings._derive(data_dir=resolve_data_dir(settings.data_dir))

    def changed(self, values: Mapping[str, Any]) -> Self:
        """
        A copy with other values, which count as said last: they go before the environment.

        Raises:
            SettingsError: Something is unknown or impossible.
        """
        fields = type(self).model_fields
        explicit = {name: getattr(self, name) for name in fields if name in self.model_fields_set}
        copy = type(self).model_validate({**explicit, **values})
        if wrong := list(contradictions(copy, {})):
            raise SettingsError("; ".join(wrong))
        copy = copy._derive(data_dir=self.data_dir)
        copy._from_environment = self._from_environment - values.keys()
        copy._changed = frozenset(values)
        return copy

    def _derive(self, **values: Any) -> Self:
        """A copy with values that count as found by us, not as written by the user."""
        explicit = frozenset(self.model_fields_set)
        copy = self.model_copy(update=values)
        copy.model_fields_set.intersection_update(explicit)
        return copy

    @model_validator(mode="wrap")
    @classmethod
    def _validate(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        preset: Mapping[str, Any] = {}
        if isinstance(data, Mapping):
            preset = PRESETS.get(str(data.get("preset", "default")).strip().lower(), {})
        try:
            settings = handler({**preset, **data} if preset else data)
        except ValidationError as error:
            names = (info.context or {}).get("names", {})
            # Its cause shows the values, secrets among them.
            raise SettingsError(explain(error, names, cls.model_fields)) from None
        if preset:
            settings.model_fields_set.intersection_update(data)
        return settings

    def source_of(self, name: str) -> Source:
        """Where the value of one setting comes from; ``file`` is the YAML's args."""
        if name in self._changed:
            return "user_config"
        if name in self._from_environment:
            return "environment"
        if name in self.model_fields_set:
            return "file"
        return "preset" if name in PRESETS[self.preset] else "default"

    def public_dict(self) -> dict[str, Any]:
        """Every setting as JSON can hold it, with secrets masked."""
        plain = self.model_dump(mode="json", exclude=set(SECRETS))
        hidden = {name: masked(name, getattr(self, name)) for name in SECRETS}
        return {name: (hidden | plain)[name] for name in type(self).model_fields}

    @property
    def embedded_postgres(self) -> bool:
        """Whether we start a Postgres of our own."""
        return self.database_url is None

    @property
    def embedded_valkey(self) -> bool:
        """Whether we start a Valkey of our own."""
        return self.redis_url is None and self.redis_host is None

    @property
    def autoscaling(self) -> bool:
        """Whether Serve decides how many replicas there are."""
        return self.preset == "production" and self.ingress_replicas is None

    @property
    def ingress_replica_count(self) -> int:
        """Replicas to start with: as set, or one for each CPU we may use, at most 4."""
        return self.ingress_replicas or min(4, len(os.sched_getaffinity(0)))

    @property
    def shard_count(self) -> int:
        """Shard actors: as set, or one for each two CPUs we may use."""
        return self.shards or min(self.partitions, max(1, len(os.sched_getaffinity(0)) // 2))

    @property
    def postgres_buffers_mib(self) -> int | None:
        """Of the embedded Postgres: less than it takes by itself, where memory is short."""
        return 64 if self.preset == "memory_optimized" else None

    @property
    def database_connection_url(self) -> str | None:
        """The user's Postgres, password and all; None where we start our own."""
        return self.database_url.get_secret_value() if self.database_url else None

    @property
    def redis_connection_url(self) -> str | None:
        """The user's Redis, password and all; None where we start our own."""
        password = quote(self.redis_password.get_secret_value(), "") if self.redis_password else ""
        if self.redis_url is not None:
            parts = urlsplit(self.redis_url.get_secret_value())
            if not password:
                return parts.geturl()
            user, _, address = parts.netloc.rpartition("@")
            netloc = f"{user.removesuffix(':')}:{password}@{address}"
            return urlunsplit(parts._replace(netloc=netloc))
        if self.redis_host is None:
            return None
        login = f":{password}@" if password else ""
        return f"redis://{login}{_in_url(self.redis_host)}:{self.redis_port or 6379}"

    @property
    def public_base_url(self) -> str:
        """What tracking links begin with, without a slash at the end."""
        if self.base_url is not None:
            return self.base_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{_in_url(host)}:{self.port}"

    @property
    def encryption_keys(self) -> tuple[str, ...]:
        """The first signs, all verify. Empty: one is made and kept in the data directory."""
        if self.email_encryption_key is None:
            return ()
        keys = self.email_encryption_key.get_secret_value().split(",")
        return tuple(key.strip() for key in keys)

    @property
    def effective_idempotency_window_ms(self) -> int:
        """How long a caller's eventId is unique in its campaign."""
        return self.idempotency_window_ms or self.deduplication_window_ms


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _not_empty(path: Path) -> Path:
    if path == Path():
        raise ValueError("must be a directory of its own")
    return path
