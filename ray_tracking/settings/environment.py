"""
What the environment says: ``TRACKING_`` and the setting's name in capitals.

A few settings are also read under the plain names that users already have, such
as ``DATABASE_URL``. An unknown ``TRACKING_`` variable stops the start: a typing
error must not silently mean the default. An empty variable counts as unset, as
Compose and Helm write it for "nothing given".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ray_tracking.errors import SettingsError

PREFIX = "TRACKING_"

#: Settings that also have a plain name.
PLAIN_NAMES: Mapping[str, str] = {
    "database_url": "DATABASE_URL",
    "redis_url": "REDIS_URL",
    "redis_host": "REDIS_HOST",
    "redis_port": "REDIS_PORT",
    "redis_password": "REDIS_PASSWORD",
    "email_encryption_key": "EMAIL_ENCRYPTION_KEY",
    "log_level": "LOG_LEVEL",
}

_SERVICE_LINK = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP)(_\w+)?)")


def read(fields: Iterable[str], env: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """
    Find the settings that the environment gives.

    Args:
        fields: Names of all settings.
        env: Read instead of the process's own environment.

    Returns:
        For each setting found: the variable's name and its text.

    Raises:
        SettingsError: A variable is unknown, or two names of one setting differ.
    """
    given = os.environ if env is None else env  # noqa: TID251  the one place that reads it
    in_pod = "KUBERNETES_SERVICE_HOST" in given
    values = {
        name: text
        for name, text in given.items()
        if text.strip() and not (in_pod and _is_service_link(name, text))
    }
    known = {PREFIX + field.upper(): field for field in fields}
    for name in sorted(values):
        if name.startswith(PREFIX) and name not in known:
            raise SettingsError(f"{name}: unknown setting{did_you_mean(name, known)}")

    found: dict[str, tuple[str, str]] = {}
    for own_name, field in known.items():
        plain_name = PLAIN_NAMES.get(field, own_name)
        if values.get(own_name, "") != values.get(plain_name, "") and (
            own_name in values and plain_name in values
        ):
            raise SettingsError(f"{plain_name} and {own_name} differ: set one of them")
        name = plain_name if plain_name in values else own_name
        if name in values:
            found[field] = (name, values[name].strip())
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as the end of a sentence, or nothing where none is near."""
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def _is_service_link(name: str, text: str) -> bool:
    # Kubernetes describes a service called "tracking" or "redis" to every pod beside
    # it, in names that look like ours: TRACKING_PORT=tcp://10.0.0.7:8000.
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and text.startswith(("tcp://", "udp://"))


#: What Ray is told where the user has not said otherwise. Read by Ray when it is imported.
_RAY_DEFAULTS = {
    # Ray 2.60 turns token authentication on by itself and leaves a token in the home
    # directory; our Ray listens on loopback only.
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    # Workers hand their niceness to their children, the embedded servers among them.
    "RAY_worker_niceness": "0",
    # No workers in reserve: our parts live as long as the service does, and each idle one takes
    # as much memory as a shard.
    "RAY_num_workers_soft_limit": "0",
    # Not of Ray but of libc: with a heap for each of its many threads, a process that has work
    # grows for hours. With one, an ingress replica has 8 MiB less and stays as it is.
    "MALLOC_ARENA_MAX": "1",
}


def ray_auth_mode() -> str:
    """How Ray is told to authenticate; empty where nothing says so."""
    return os.environ.get("RAY_AUTH_MODE", "").strip().lower()  # noqa: TID251


def ray_address() -> str | None:
    """The Ray that the environment names."""
    return os.environ.get("RAY_ADDRESS") or None  # noqa: TID251 - Ray reads it as well


def set_ray_defaults() -> None:
    """Prepare the environment of a Ray that this process is about to start."""
    for name, value in _RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - Ray is configured through it
