"""``ray-tracking status``: how a running service is, for people and for scripts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import click

from ray_tracking.errors import Unavailable
from ray_tracking.settings import Settings

_MARKS = {"healthy": "ok", "degraded": "!!", "unhealthy": "XX"}


@click.command()
@click.option("--url", help="Of the service; else from the settings.")
@click.option("--api-key", envvar="RAY_TRACKING_API_KEY", help="A key with the scope read.")
@click.option("--json", "as_json", is_flag=True, help="As the API gives it.")
@click.pass_context
def command(context: click.Context, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Show the health of a running service.

    Exit code 0 when healthy or degraded, 1 when unhealthy, 2 when there is no answer.
    """
    base = (url or Settings.load().public_base_url).rstrip("/")
    status = asyncio.run(_ask(base, api_key))
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        click.echo(f"{base} is {status['overall']} ({status['timestamp']})")
        for name, part in status["components"].items():
            reason = f"  {part['error']}" if part.get("error") else ""
            click.echo(f"  {_MARKS[part['status']]}  {name:<12} {part['status']}{reason}")
    context.exit(1 if status["overall"] == "unhealthy" else 0)


async def _ask(base: str, api_key: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(f"{base}/health/tracking") as answer,
        ):
            body: dict[str, Any] = await answer.json()
    except aiohttp.ClientConnectorError:
        raise Unavailable(
            f"nothing listens at {base}: is it running, and is --url right?"
        ) from None
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unavailable(f"{base} does not answer: {error}") from None
    if "overall" not in body:
        raise Unavailable(
            f"{base} answered {answer.status}: {body.get('error', 'no reason given')}"
        )
    return body
