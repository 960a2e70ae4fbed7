"""``ray-tracking keys``: API keys for callers, made offline."""

from __future__ import annotations

import secrets
from typing import get_args

import click

from ray_tracking.settings import Scope

_KEY_BYTES = 32
_OPENS = {
    "ingest": "events, tracking links",
    "read": "figures, live updates, the dashboard, metrics",
    "admin": "replays, dead letters, limits, erasing and exporting a lead",
}


@click.group()
def command() -> None:
    """Make API keys for callers."""


@command.command()
@click.argument("scopes", nargs=-1, required=True, type=click.Choice(get_args(Scope)))
def new(scopes: tuple[str, ...]) -> None:
    """Make a key that opens these scopes, and say where it belongs.

    Nothing is stored: the service knows the keys in TRACKING_API_KEYS, and those only. A key
    that is taken out of it opens nothing from the next start on.
    """
    key = secrets.token_urlsafe(_KEY_BYTES)
    chosen = list(dict.fromkeys(scopes))
    click.echo(f"{key}:{'+'.join(chosen)}")
    for scope in chosen:
        click.echo(f"{scope:<7} opens {_OPENS[scope]}", err=True)
    click.echo("Add the line above to TRACKING_API_KEYS, with a comma between keys.", err=True)
    click.echo(f"Callers send  Authorization: Bearer {key}", err=True)
