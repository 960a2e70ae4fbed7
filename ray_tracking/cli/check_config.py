"""
``ray-tracking check-config``: what the settings come to, and where each comes from.

It reads what a start would read and starts nothing. Exit code 0 means that these
settings let the service start here; 2 means they do not, and the one line on stderr
says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ray_tracking.cli.named import check_named
from ray_tracking.cli.serve_file import check_changes, check_listener, read_config
from ray_tracking.settings import Settings, environment
from ray_tracking.settings.data_dir import DEFAULT_DATA_DIR, resolve_data_dir


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(file: Path | None, as_json: bool) -> None:
    """
    Show the effective settings and where each comes from, or what is wrong.

    FILE is a Serve YAML, or a YAML mapping of settings; without it, only the
    environment counts. Secrets are never shown.
    """
    args, serve = read_config(file) if file else ({}, None)
    settings = Settings.load(args)
    if serve is not None:
        check_listener(serve, settings)
        check_changes(serve, settings)
    check_named(settings)
    rows = {
        name: {"value": value, "source": settings.source_of(name)}
        for name, value in settings.public_dict().items()
    }
    notes = _notes(settings, args)
    if as_json:
        click.echo(json.dumps({"settings": rows, "notes": notes}, indent=2))
        return
    shown = [(name, _text(row["value"]), row["source"]) for name, row in rows.items()]
    widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
    for name, value, source in shown:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    for note in notes:
        click.echo(f"\n{note}")


def _notes(settings: Settings, args: Mapping[str, Any]) -> list[str]:
    """What the values alone do not tell, for someone about to deploy them."""
    notes = [
        f"The data directory is {settings.data_dir}.",
        "On an existing cluster the application is built inside a Ray worker: the settings "
        "come from the YAML and the nodes' environment, not from this shell's.",
    ]
    in_environment = environment.read(Settings.model_fields).get("data_dir")
    written = in_environment[1] if in_environment else args.get("data_dir", DEFAULT_DATA_DIR)
    if not Path(written).expanduser().is_absolute():
        elsewhere = resolve_data_dir(Path(written), cwd=Path("/session_latest"))
        notes.append(
            f"data_dir is relative. It counts from the directory in which Ray was started; where "
            f"Ray unpacked a shipped working_dir, from the home directory: {elsewhere}."
        )
    return notes


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
