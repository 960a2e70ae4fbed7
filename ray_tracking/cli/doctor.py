"""
``ray-tracking doctor``: is this machine, or this cluster, fit to run it?

It looks and changes nothing: :mod:`ray_tracking.pipeline.doctor` judges what was found.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from ray_tracking.cli.named import check_named
from ray_tracking.cli.serve_file import check_changes, check_listener, read_config
from ray_tracking.pipeline.doctor import (
    Finding,
    MachineFacts,
    PortFacts,
    State,
    Wanted,
    check_cluster,
    check_machine,
    check_port,
    check_postgres,
    check_redis,
    worst,
)
from ray_tracking.settings import Settings
from ray_tracking.settings.whole import is_loopback

_MARKS = {State.OK: "ok", State.WARN: "!!", State.FAIL: "XX"}
_PROBE_WITHIN_S = 5.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--address", envvar="RAY_ADDRESS", help="Of a Ray cluster, such as auto: checks every node."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def command(context: click.Context, file: Path | None, address: str | None, as_json: bool) -> None:
    """
    Check machine, cluster, Postgres and Redis, and say what to do about what is wrong.

    FILE is a Serve YAML or a YAML mapping of settings; without it, only the environment counts.
    Nothing is changed. Exit code 0 when everything is fit or may only hurt some day, 1 when
    something loses events or keeps the service from starting, 2 when it cannot be asked.
    """
    args, serve = read_config(file) if file else ({}, None)
    settings = Settings.load(args)
    if serve is not None:
        check_listener(serve, settings)
        check_changes(serve, settings)
    check_named(settings)
    findings = [*_machines(settings, address), *asyncio.run(_servers(settings))]
    state = worst(findings)
    if as_json:
        shown = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"state": state, "findings": shown}, indent=2))
    else:
        _show(findings)
    context.exit(1 if state is State.FAIL else 0)


def _machines(settings: Settings, address: str | None) -> Iterator[Finding]:
    # Only here: Ray takes a second to import.
    from ray_tracking.actors.nodes import probe_machine, probe_nodes

    wanted = _wanted(settings)
    if address is None:
        machine = probe_machine(settings.data_dir)
        yield from check_machine(machine, wanted)
        yield check_port(machine.name, _port(settings))
        return
    nodes: list[MachineFacts] = [
        replace(facts, skew_s=skew_s, skew_known_to_s=known_to_s)
        for facts, skew_s, known_to_s in probe_nodes(address, settings.data_dir)
    ]
    for node in nodes:
        yield from check_machine(node, wanted)
    yield from check_cluster(nodes)


async def _servers(settings: Settings) -> list[Finding]:
    from ray_tracking.stores.probe import probe_postgres, probe_redis

    findings: list[Finding] = []
    if url := settings.database_connection_url:
        findings += check_postgres(await probe_postgres(url, settings.database_schema))
    else:
        findings.append(_embedded("postgres"))
    if url := settings.redis_connection_url:
        findings += check_redis(await probe_redis(url), _wanted(settings))
    else:
        findings.append(_embedded("redis"))
    return findings


def _embedded(name: str) -> Finding:
    return Finding(name, "reachable", State.OK, "one of our own, started with the service")


def _wanted(settings: Settings) -> Wanted:
    replicas = settings.ingress_replica_count
    return Wanted(
        spool_bytes=replicas * settings.spool_max_bytes if settings.spool else 0,
        max_connections=settings.max_connections,
        max_backlog_bytes=settings.max_backlog_bytes,
        is_public=not is_loopback(settings.host),
        redis_safety=settings.redis_safety,
    )


def _port(settings: Settings) -> PortFacts:
    host, port = settings.host, settings.port
    address = f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return PortFacts(address, "free")
        except OSError as error:
            reason = error.strerror or str(error)
    return PortFacts(address, "ours" if _is_ours(settings) else reason)


def _is_ours(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    asked = http.client.HTTPConnection(host, settings.port, timeout=_PROBE_WITHIN_S)
    try:
        asked.request("GET", "/-/routes")
        return b"tracking" in asked.getresponse().read(4096)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


def _show(findings: list[Finding]) -> None:
    widths = [max(len(finding[column]) for finding in findings) for column in (0, 1)]
    for finding in findings:
        mark = _MARKS[finding.state]
        where, what = finding.where.ljust(widths[0]), finding.what.ljust(widths[1])
        click.echo(f"  {mark}  {where}  {what}  {finding.found}")
        if finding.advice:
            click.echo(f"      {'':{widths[0]}}  {'':{widths[1]}}  → {finding.advice}")
    counts = {state: sum(finding.state is state for finding in findings) for state in State}
    click.echo(
        f"\n{len(findings)} checked, {counts[State.WARN]} may hurt some day, "
        f"{counts[State.FAIL]} must be mended"
    )
