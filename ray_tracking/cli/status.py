"""``ray-tracking status``: how a running service is, for people and for scripts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from ray_tracking.cli.service import reach, service_options

_MARKS = {"healthy": "ok", "degraded": "!!", "unhealthy": "XX"}


@click.command()
@service_options("read")
@click.option("--json", "as_json", is_flag=True, help="As the API gives it.")
@click.pass_context
def command(context: click.Context, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Show the health of a running service.

    Exit code 0 when healthy or degraded, 1 when unhealthy, 2 when there is no answer.
    """
    base, status = asyncio.run(_ask(url, api_key))
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        click.echo(f"{base} is {status['overall']} ({status['timestamp']})")
        for name, part in status["components"].items():
            reason = f"  {part['error']}" if part.get("error") else ""
            click.echo(f"  {_MARKS[part['status']]}  {name:<15} {part['status']}{reason}")
            if part.get("action"):
                click.echo(f"      since {part['since']}; {part['action']}")
    context.exit(1 if status["overall"] == "unhealthy" else 0)


async def _ask(url: str | None, api_key: str | None) -> tuple[str, dict[str, Any]]:
    """Where the service is, and how."""
    async with reach(url, api_key) as service:
        code, status = await service.ask("GET", "/health/tracking")
        if "overall" not in status:
            raise service.refusal(code, status)
        return service.base, status
