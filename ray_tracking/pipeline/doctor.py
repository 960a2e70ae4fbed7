"""
What is not as it should be with a machine, a cluster and its servers: judged from facts.

Each finding says what was found and, where that is not good, what to do. ``fail`` is what loses
events or keeps the service from starting; ``warn`` is what will hurt some day.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

PYTHON = (3, 11)
RAY = "2.60"
REDIS = (6, 2)
POSTGRES = 15
#: Of what a process needs beside its clients' connections: files, servers, other processes.
_OTHER_FILES = 500
#: Connections to Postgres that all parts may hold together.
_POSTGRES_CONNECTIONS = 40
_SPARE_DISK_BYTES = 1024**3
_SKEW_WARN_S, _SKEW_FAIL_S = 0.1, 1.0
_ROUND_TRIP_WARN_MS = 5.0


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One thing that was looked at."""

    where: str
    what: str
    state: State
    found: str
    #: What to do; empty where there is nothing to do.
    advice: str = ""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One machine, as a process of the service would find it."""

    name: str
    python: str
    ray: str
    package: str
    open_files: int
    #: How many connections may wait to be accepted; None where nobody says.
    somaxconn: int | None
    data_dir: str
    #: Why nothing can be written there, if so.
    data_dir_trouble: str | None
    free_bytes: int
    #: How far its clock is ahead of the one that asks, and how well that is known.
    skew_s: float = 0.0
    skew_known_to_s: float = 0.0
    #: ``token``, ``disabled``, or empty where nothing says so.
    auth_mode: str = ""
    #: Names of settings from the environment, and a hash of what they say.
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PortFacts:
    """Who has the port that we want."""

    address: str
    #: ``free`` or ``ours``, or why it cannot be had.
    state: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Postgres or Redis, with some of its settings."""

    address: str
    #: Why nothing else is known.
    trouble: str | None = None
    version: tuple[int, ...] = ()
    settings: Mapping[str, str] | None = None
    round_trip_ms: float = 0.0
    skew_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask of machine and servers."""

    spool_bytes: int
    max_connections: int
    max_backlog_bytes: int
    is_public: bool
    redis_safety: str = "refuse"


def check_machine(machine: MachineFacts, wanted: Wanted) -> Iterator[Finding]:
    """One machine by itself."""

    def finding(what: str, state: State, found: str, advice: str = "") -> Finding:
        return Finding(machine.name, what, state, found, advice)

    old = _version(machine.python) < PYTHON
    yield finding(
        "python",
        State.FAIL if old else State.OK,
        machine.python,
        f"install Python {PYTHON[0]}.{PYTHON[1]} or later" if old else "",
    )
    other = not machine.ray.startswith(f"{RAY}.")
    yield finding(
        "ray",
        State.FAIL if other else State.OK,
        machine.ray,
        f"install Ray {RAY}: pip install --require-hashes -r requirements.lock" if other else "",
    )
    least = wanted.max_connections + _OTHER_FILES
    few = machine.open_files < least
    yield finding(
        "open files",
        State.WARN if few else State.OK,
        f"{machine.open_files:,}",
        f"ulimit -n {least} before Ray is started, or lower max_connections" if few else "",
    )
    if machine.somaxconn is not None:
        short = machine.somaxconn < 2048
        yield finding(
            "accept queue",
            State.WARN if short else State.OK,
            f"{machine.somaxconn:,}",
            "sysctl -w net.core.somaxconn=4096" if short else "",
        )
    if machine.data_dir_trouble:
        advice = "create it, and let the user who starts Ray write there; or set TRACKING_DATA_DIR"
        yield finding("data directory", State.FAIL, machine.data_dir_trouble, advice)
    else:
        least_bytes = wanted.spool_bytes + _SPARE_DISK_BYTES
        full = machine.free_bytes < least_bytes
        yield finding(
            "disk",
            State.WARN if full else State.OK,
            f"{_size(machine.free_bytes)} free in {machine.data_dir}",
            f"make {_size(least_bytes)} free for the spools, or lower TRACKING_SPOOL_MAX_BYTES"
            if full
            else "",
        )
    yield from _auth(machine, wanted)


def check_port(name: str, port: PortFacts) -> Finding:
    """Whether we can have it, or have it already."""
    free = port.state in ("free", "ours")
    shown = {"free": "free", "ours": "a ray-tracking answers"}.get(port.state, port.state)
    advice = "" if free else "stop what uses it, or set TRACKING_PORT to another"
    return Finding(name, f"port {port.address}", State.OK if free else State.FAIL, shown, advice)


def check_postgres(server: ServerFacts) -> Iterator[Finding]:
    """A Postgres that was named in the settings."""
    where = "postgres"
    if server.trouble:
        advice = "start it, or correct DATABASE_URL; from every node"
        yield Finding(where, "reachable", State.FAIL, server.trouble, advice)
        return
    yield from _reached(where, server, server.version >= (POSTGRES,), f"Postgres {POSTGRES}")
    settings = server.settings or {}
    for name, least, why in (
        ("fsync", "on", "a crash of its machine can destroy the whole database"),
        ("full_page_writes", "on", "a crash of its machine can destroy pages"),
    ):
        yield _setting(where, settings, name, least, State.FAIL, f"set it to {least}: {why}")
    commit = settings.get("synchronous_commit", "")
    lax = commit == "off"
    yield Finding(
        where,
        "synchronous_commit",
        State.FAIL if lax else State.OK,
        commit,
        "ALTER SYSTEM SET synchronous_commit = on: the log is trimmed to what it says is stored"
        if lax
        else "",
    )
    connections = int(settings.get("max_connections", "0"))
    few = connections < _POSTGRES_CONNECTIONS
    advice = f"ALTER SYSTEM SET max_connections = {2 * _POSTGRES_CONNECTIONS}, and restart it"
    state = State.WARN if few else State.OK
    yield Finding(where, "max_connections", state, str(connections), advice if few else "")


def check_redis(server: ServerFacts, wanted: Wanted) -> Iterator[Finding]:
    """A Redis or Valkey that was named in the settings."""
    where = "redis"
    if server.trouble:
        advice = "start it, or correct REDIS_URL; from every node"
        yield Finding(where, "reachable", State.FAIL, server.trouble, advice)
        return
    yield from _reached(where, server, server.version >= REDIS, f"Redis {REDIS[0]}.{REDIS[1]}")
    unsafe = State.FAIL if wanted.redis_safety == "refuse" else State.WARN
    if server.settings is None:
        advice = "allow CONFIG GET, or set redis_safety to warn if you are sure that it keeps all"
        yield Finding(where, "settings", unsafe, "it forbids CONFIG", advice)
        return
    for name, value, why in (
        ("appendonly", "yes", "events are acknowledged by its log"),
        ("maxmemory-policy", "noeviction", "it throws acknowledged events away otherwise"),
        ("no-appendfsync-on-rewrite", "no", "it does not fsync while it rewrites otherwise"),
    ):
        advice = f"redis-cli CONFIG SET {name} {value}, and in its file: {why}"
        yield _setting(where, server.settings, name, value, unsafe, advice)
    fsync = server.settings.get("appendfsync", "")
    state = {"always": State.OK, "everysec": State.WARN}.get(fsync, unsafe)
    advice = "redis-cli CONFIG SET appendfsync always: a power cut loses the last second otherwise"
    yield Finding(where, "appendfsync", state, fsync, "" if state is State.OK else advice)
    limit = int(server.settings.get("maxmemory", "0"))
    small = 0 < limit < wanted.max_backlog_bytes
    yield Finding(
        where,
        "maxmemory",
        State.WARN if small else State.OK,
        _size(limit) if limit else "unlimited",
        f"raise it above max_backlog_bytes ({_size(wanted.max_backlog_bytes)}), or lower that"
        if small
        else "",
    )


def check_cluster(machines: Iterable[MachineFacts]) -> Iterator[Finding]:
    """What the nodes of a cluster must have in common."""
    machines = list(machines)
    for what, advice in (
        ("python", "install the same Python on every node"),
        ("ray", "install the same Ray on every node"),
        ("package", "install the same release of ray-tracking on every node"),
    ):
        found = sorted({str(getattr(machine, what)) for machine in machines})
        same = len(found) == 1
        state = State.OK if same else State.FAIL
        yield Finding("cluster", f"one {what}", state, ", ".join(found), "" if same else advice)
    for machine in machines:
        off_s = max(0.0, abs(machine.skew_s) - machine.skew_known_to_s)
        state = State.FAIL if off_s > _SKEW_FAIL_S else State.WARN
        state = state if off_s > _SKEW_WARN_S else State.OK
        advice = "" if state is State.OK else "have chrony or systemd-timesyncd set its clock"
        shown = f"{1000 * machine.skew_s:+.0f} ms"
        yield Finding(machine.name, "clock", state, shown, advice)
    yield from _environments(machines)


def worst(findings: Iterable[Finding]) -> State:
    """The state of the whole."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.FAIL, State.WARN) if state in states), State.OK)


def _environments(machines: list[MachineFacts]) -> Iterator[Finding]:
    names = sorted({name for machine in machines for name in machine.settings or {}})
    differ = [
        name
        for name in names
        if len({(machine.settings or {}).get(name) for machine in machines}) > 1
    ]
    yield Finding(
        "cluster",
        "environment",
        State.WARN if differ else State.OK,
        f"{', '.join(differ)} differ" if differ else "the same on every node",
        "give every node the same before its ray start, unless you mean it" if differ else "",
    )


def _auth(machine: MachineFacts, wanted: Wanted) -> Iterator[Finding]:
    mode = machine.auth_mode
    if not mode and wanted.is_public:
        advice = "set RAY_AUTH_MODE to token (or disabled, on a network of your own) on every node"
        yield Finding(machine.name, "RAY_AUTH_MODE", State.WARN, "not set", advice)
    elif mode == "disabled" and wanted.is_public:
        advice = "set it to token, with the same RAY_AUTH_TOKEN on every node: whoever reaches "
        advice += "Ray's ports can run anything there"
        yield Finding(machine.name, "RAY_AUTH_MODE", State.WARN, mode, advice)
    else:
        yield Finding(machine.name, "RAY_AUTH_MODE", State.OK, mode or "not set")


def _reached(where: str, server: ServerFacts, is_new: bool, least: str) -> Iterator[Finding]:
    shown = f"{server.address}, {server.round_trip_ms:.1f} ms"
    far = server.round_trip_ms > _ROUND_TRIP_WARN_MS
    advice = "put it nearer: every acknowledgement waits for it" if far else ""
    yield Finding(where, "reachable", State.WARN if far else State.OK, shown, advice)
    state = State.OK if is_new else State.FAIL
    version = ".".join(map(str, server.version))
    yield Finding(where, "version", state, version, "" if is_new else f"{least} or later is needed")
    off_s = abs(server.skew_s)
    state = State.WARN if off_s > _SKEW_FAIL_S else State.OK
    advice = "" if state is State.OK else "have chrony or systemd-timesyncd set both clocks"
    yield Finding(where, "clock", state, f"{1000 * server.skew_s:+.0f} ms", advice)


def _setting(
    where: str, settings: Mapping[str, str], name: str, wanted: str, bad: State, advice: str
) -> Finding:
    found = settings.get(name, "unknown")
    good = found == wanted
    return Finding(where, name, State.OK if good else bad, found, "" if good else advice)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _size(number: int) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:,} bytes"
