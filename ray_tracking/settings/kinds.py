"""
The kinds of value a setting can have, and how each is read from text.

The same types read a YAML value and the text of an environment variable: numbers
as digits, sizes as ``4GiB``, lists as JSON or separated by commas, structures as
JSON. A message says what is allowed and leaves out the value: who reports the
error adds it, unless it is a secret.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Scope = Literal["ingest", "read", "admin"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _not_a_bool(value: Any) -> Any:
    # YAML reads `yes` and `on` as true, and true is 1 to Python.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return _not_a_bool(value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a number of bytes, or a size such as 512MiB or 4GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _level(value: Any) -> Any:
    # What loggers of the Node world call it, and LOG_LEVEL is often shared with them.
    value = _lower(value)
    return "warning" if value == "warn" else value


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"must be JSON ({error})") from None


def _items(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _matching(pattern: str, allowed: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(f"must be {allowed}")
        return value

    return AfterValidator(check)


def _split(value: str, allowed: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(f"must be {allowed}") from None
    return parts


def _url(schemes: tuple[str, ...], allowed: str) -> Callable[[SecretStr], SecretStr]:
    def check(secret: SecretStr) -> SecretStr:
        parts = _split(secret.get_secret_value(), allowed)
        if parts.scheme not in schemes or not (parts.netloc or parts.path.strip("/")):
            raise ValueError(f"must be {allowed}")
        if "schema" in parse_qs(parts.query):
            # Prisma's habit. Postgres itself would refuse the connection later.
            raise ValueError("takes no ?schema=: set database_schema instead")
        return secret

    return check


def _web_url(value: str) -> str:
    allowed = "an absolute http or https URL without query and fragment"
    parts = _split(value, allowed)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", value):
        raise ValueError(f"must be {allowed}")
    if "?" in value or "#" in value or parts.username is not None:
        raise ValueError(f"must be {allowed}")
    return value.rstrip("/")


def _collector(value: str) -> str:
    if not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        raise ValueError("needs more: pip install 'ray-tracking[otel]', on every node")
    return value


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is a package that it would be in
        return False


def _origin(value: str) -> str:
    if value == "*":
        return value
    allowed = "an origin such as https://app.example.com, or *"
    parts = _split(value, allowed)
    if value.rstrip("/") != f"{parts.scheme}://{parts.netloc}" or not parts.hostname:
        raise ValueError(f"must be {allowed}")
    return value.rstrip("/")


def _network(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value.strip())
        except ValueError as error:
            raise ValueError(f"must be a network such as 10.0.0.0/8 ({error})") from None
    if not isinstance(value, Network):
        raise ValueError("must be a network such as 10.0.0.0/8")
    return value


def _host(value: str) -> str:
    name = value.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", name) is None:
            raise ValueError("must be an address or a host name, without a port") from None
    return name


def _encryption_keys(secret: SecretStr) -> SecretStr:
    if any(len(key.strip()) < 32 for key in secret.get_secret_value().split(",")):
        raise ValueError("each key, separated by commas, must have at least 32 characters")
    return secret


Count = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1, le=1_000_000_000)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Thresholds(_Frozen):
    """Events in the backlog at which each level of back-pressure begins."""

    warning: Count
    critical: Count
    emergency: Count

    @model_validator(mode="after")
    def _ascending(self) -> Thresholds:
        if not self.warning < self.critical < self.emergency:
            raise ValueError("must have warning < critical < emergency")
        return self


class ApiKey(_Frozen):
    """One key of a caller, and what it opens. Written ``key:scope+scope``."""

    key: SecretStr
    scopes: frozenset[Scope]


def _api_key(value: Any) -> Any:
    if isinstance(value, ApiKey):
        return value
    allowed = f"must be key:scope+scope, with scopes from {', '.join(get_args(Scope))}"
    if not isinstance(value, str):
        raise ValueError(allowed)
    # From the right: a key may contain colons, a scope may not.
    key, _, scopes = value.strip().rpartition(":")
    names = {name.strip() for name in scopes.split("+")}
    # It travels in a header, so it must be plain printable ASCII.
    if not re.fullmatch(r"[!-~]+", key) or not names <= set(get_args(Scope)):
        raise ValueError(allowed)
    return ApiKey(key=SecretStr(key), scopes=frozenset(names))  # type: ignore[arg-type]


#: At most 31 days: dedup and limits keep their windows in memory.
Milliseconds = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1, le=31 * 86_400_000)]
#: Of rows; 0 for none. A writer that stores nothing for ten seconds is taken to be stuck.
Delay = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=0, le=5000)]
Seconds = Annotated[
    float, BeforeValidator(_not_a_bool), Field(gt=0, le=86_400, allow_inf_nan=False)
]
Bytes = Annotated[int, BeforeValidator(_size), Field(ge=1)]
#: Shards, replicas and whatever else the work is divided into.
Parts = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1, le=1024)]
Days = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1, le=36_500)]
Port = Annotated[int, BeforeValidator(_not_a_bool), Field(ge=1, le=65_535)]
Lower = BeforeValidator(_lower)
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_level)
]
Host = Annotated[str, AfterValidator(_host)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
Collector = Annotated[WebUrl, AfterValidator(_collector)]
PostgresUrl = Annotated[
    SecretStr,
    AfterValidator(_url(("postgresql", "postgres"), "postgresql://user:password@host:port/name")),
]
RedisUrl = Annotated[
    SecretStr,
    AfterValidator(
        _url(("redis", "rediss", "unix"), "redis://, rediss:// or unix://, as in redis://host:6379")
    ),
]
EncryptionKeys = Annotated[SecretStr, AfterValidator(_encryption_keys)]
RedisPrefix = Annotated[str, _matching(r"[^\s{}]+", "a text without spaces and braces")]
SchemaName = Annotated[
    str,
    _matching(
        r"(?!pg_|information_schema$)[A-Za-z_][A-Za-z0-9_]{0,62}",
        "a plain name: letters, digits and _, not one of Postgres's own",
    ),
]
_Rule = Annotated[
    str, _matching(_DOTTED_PATH.pattern, "a dotted path such as mypkg.rules:no_internal_ips")
]
_Origin = Annotated[str, AfterValidator(_origin)]
_Network = Annotated[Network, BeforeValidator(_network)]
_Key = Annotated[ApiKey, BeforeValidator(_api_key)]
Networks = Annotated[tuple[_Network, ...], BeforeValidator(_items)]
Origins = Annotated[tuple[_Origin, ...], BeforeValidator(_items)]
Rules = Annotated[tuple[_Rule, ...], BeforeValidator(_items)]
ApiKeys = Annotated[tuple[_Key, ...], BeforeValidator(_items)]
ThresholdsField = Annotated[Thresholds, BeforeValidator(_json)]
