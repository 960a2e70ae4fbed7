"""What the doctor says of machines, clusters and servers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ray_tracking.pipeline.doctor import (
    Finding,
    MachineFacts,
    PortFacts,
    ServerFacts,
    State,
    Wanted,
    check_cluster,
    check_machine,
    check_port,
    check_postgres,
    check_redis,
    worst,
)

GIB = 1024**3
WANTED = Wanted(
    spool_bytes=4 * GIB, max_connections=10_000, max_backlog_bytes=4 * GIB, is_public=True
)
MACHINE = MachineFacts(
    name="node a",
    python="3.11.7",
    ray="2.60.0",
    package="0.1.0",
    open_files=65_536,
    somaxconn=4096,
    data_dir="/var/lib/ray_tracking",
    data_dir_trouble=None,
    free_bytes=50 * GIB,
    auth_mode="token",
    settings={"DATABASE_URL": "1"},
)
POSTGRES = ServerFacts(
    "postgresql://u:***@db/x",
    version=(18, 1),
    settings={
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
        "max_connections": "100",
    },
    round_trip_ms=0.4,
)  # fmt: skip
REDIS = ServerFacts(
    "redis://cache",
    version=(7, 2),
    settings={
        "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
        "no-appendfsync-on-rewrite": "no", "maxmemory": "0",
    },
    round_trip_ms=0.4,
)  # fmt: skip


def bad(findings: Any) -> list[tuple[str, State]]:
    """What is not as it should be; each such finding says what to do, and no other does."""
    findings = list(findings)
    assert all(bool(each.advice) == (each.state is not State.OK) for each in findings)
    return [(each.what, each.state) for each in findings if each.state is not State.OK]


def test_what_is_fit_needs_nothing() -> None:
    assert bad(check_machine(MACHINE, WANTED)) == []
    assert bad(check_cluster([MACHINE, replace(MACHINE, name="node b")])) == []
    assert bad(check_postgres(POSTGRES)) == []
    assert bad(check_redis(REDIS, WANTED)) == []


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"python": "3.10.2"}, ("python", State.FAIL)),
        ({"ray": "2.6.0"}, ("ray", State.FAIL)),
        ({"open_files": 1024}, ("open files", State.WARN)),
        ({"somaxconn": 128}, ("accept queue", State.WARN)),
        ({"data_dir_trouble": "/x: Permission denied"}, ("data directory", State.FAIL)),
        ({"free_bytes": 3 * GIB}, ("disk", State.WARN)),
        ({"auth_mode": ""}, ("RAY_AUTH_MODE", State.WARN)),
        ({"auth_mode": "disabled"}, ("RAY_AUTH_MODE", State.WARN)),
    ],
)
def test_what_is_wrong_with_a_machine_is_found(facts: Any, found: tuple[str, State]) -> None:
    assert bad(check_machine(replace(MACHINE, **facts), WANTED)) == [found]


def test_on_loopback_ray_needs_no_token() -> None:
    machine = replace(MACHINE, auth_mode="disabled")

    assert bad(check_machine(machine, replace(WANTED, is_public=False))) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [("free", State.OK), ("ours", State.OK), ("Address already in use", State.FAIL)],
)
def test_a_port_is_free_or_ours(state: str, expected: State) -> None:
    assert check_port("here", PortFacts("127.0.0.1:8000", state)).state is expected


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"python": "3.12.1"}, ("one python", State.FAIL)),
        ({"ray": "2.60.1"}, ("one ray", State.FAIL)),
        ({"package": "0.2.0"}, ("one package", State.FAIL)),
        ({"skew_s": 0.4, "skew_known_to_s": 0.05}, ("clock", State.WARN)),
        ({"skew_s": -3.0}, ("clock", State.FAIL)),
        ({"settings": {"DATABASE_URL": "2"}}, ("environment", State.WARN)),
        ({"settings": {}}, ("environment", State.WARN)),
    ],
)
def test_nodes_that_differ_are_found(facts: Any, found: tuple[str, State]) -> None:
    assert bad(check_cluster([MACHINE, replace(MACHINE, **facts)])) == [found]


def test_a_skew_that_may_be_the_way_is_none() -> None:
    slow = replace(MACHINE, skew_s=0.4, skew_known_to_s=0.35)

    assert bad(check_cluster([MACHINE, slow])) == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"fsync": "off"}, ("fsync", State.FAIL)),
        ({"full_page_writes": "off"}, ("full_page_writes", State.FAIL)),
        ({"synchronous_commit": "off"}, ("synchronous_commit", State.FAIL)),
        ({"synchronous_commit": "local"}, None),
        ({"max_connections": "20"}, ("max_connections", State.WARN)),
    ],
)
def test_a_postgres_that_forgets_is_found(settings: Any, found: Any) -> None:
    server = replace(POSTGRES, settings={**(POSTGRES.settings or {}), **settings})

    assert bad(check_postgres(server)) == ([found] if found else [])


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"appendonly": "no"}, ("appendonly", State.FAIL)),
        ({"maxmemory-policy": "allkeys-lru"}, ("maxmemory-policy", State.FAIL)),
        ({"no-appendfsync-on-rewrite": "yes"}, ("no-appendfsync-on-rewrite", State.FAIL)),
        ({"appendfsync": "everysec"}, ("appendfsync", State.WARN)),
        ({"appendfsync": "no"}, ("appendfsync", State.FAIL)),
        ({"maxmemory": str(GIB)}, ("maxmemory", State.WARN)),
        ({"maxmemory": str(8 * GIB)}, None),
    ],
)
def test_a_redis_that_forgets_is_found(settings: Any, found: Any) -> None:
    server = replace(REDIS, settings={**(REDIS.settings or {}), **settings})

    assert bad(check_redis(server, WANTED)) == ([found] if found else [])


def test_a_redis_that_tells_nothing_is_let_pass_where_the_settings_say_so() -> None:
    server = replace(REDIS, settings=None)

    assert bad(check_redis(server, WANTED)) == [("settings", State.FAIL)]
    relaxed = replace(WANTED, redis_safety="warn")
    assert bad(check_redis(server, relaxed)) == [("settings", State.WARN)]


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"trouble": "Connection refused"}, ("reachable", State.FAIL)),
        ({"version": (5, 0)}, ("version", State.FAIL)),
        ({"round_trip_ms": 80.0}, ("reachable", State.WARN)),
        ({"skew_s": 5.0}, ("clock", State.WARN)),
    ],
)
def test_what_is_wrong_with_a_server_is_found(facts: Any, found: tuple[str, State]) -> None:
    assert bad(check_postgres(replace(POSTGRES, **facts))) == [found]
    assert bad(check_redis(replace(REDIS, **facts), WANTED)) == [found]


def test_the_worst_counts() -> None:
    def finding(state: State) -> Finding:
        return Finding("", "", state, "")

    assert worst([]) is State.OK
    assert worst([finding(State.OK), finding(State.WARN)]) is State.WARN
    assert worst([finding(State.FAIL), finding(State.WARN)]) is State.FAIL
