"""``ray-tracking limits``: what one campaign may send, and letting it send more or less."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import click

from ray_tracking.cli.service import reach, service_options

_Limit = click.IntRange(1, 1_000_000_000)


@click.command()
@click.argument("campaign_id", metavar="CAMPAIGN")
@click.option("--max-events", type=_Limit, help="In any window. Left out: as the others.")
@click.option("--burst", type=_Limit, help="Single events in a second. Left out: as the others.")
@click.option("--reset", is_flag=True, help="Take its own limits back.")
@click.option("--json", "as_json", is_flag=True, help="As the API gives it.")
@service_options("admin; read is enough to look")
def command(
    campaign_id: str,
    max_events: int | None,
    burst: int | None,
    reset: bool,
    as_json: bool,
    url: str | None,
    api_key: str | None,
) -> None:
    """Show the limits of CAMPAIGN, or set its own with --max-events and --burst.

    What is set stands in the place of what was set before, is in force within two seconds, and
    outlives every restart.
    """
    given = {"maxEventsPerWindow": max_events, "burstCapacity": burst}
    own = {name: limit for name, limit in given.items() if limit is not None}
    if reset and own:
        raise click.UsageError("--reset takes both back: leave --max-events and --burst out")
    method = "DELETE" if reset else "PUT" if own else "GET"
    limits = asyncio.run(_ask(url, api_key, method, campaign_id, own or None))
    if as_json:
        click.echo(json.dumps(limits, indent=2))
        return
    since = limits["updatedAt"]
    whose = f"its own, since {since}" if since else "those of all campaigns"
    click.echo(f"{campaign_id}: {whose}")
    window_s = limits["rateLimitWindowMs"] / 1000
    click.echo(f"  {limits['maxEventsPerWindow']:>13,} events in any {window_s:g} s")
    click.echo(f"  {limits['burstCapacity']:>13,} single events in a second")


async def _ask(
    url: str | None, api_key: str | None, method: str, campaign_id: str, value: Any
) -> dict[str, Any]:
    """The limits that are in force then."""
    async with reach(url, api_key) as service:
        path = f"/campaigns/{quote(campaign_id, safe='')}/limits"
        status, limits = await service.ask(method, path, value=value)
        if status != 200:
            raise service.refusal(status, limits)
        return limits
