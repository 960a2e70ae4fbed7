"""``ray-tracking verify``: are the figures of campaigns what their rows say?"""

from __future__ import annotations

import asyncio
import json

import click

from ray_tracking.cli.servers import queries
from ray_tracking.errors import RequestError
from ray_tracking.pipeline.recount import Check
from ray_tracking.settings import Settings

_MOST_SHOWN = 20


@click.command()
@click.argument("campaign_ids", metavar="[CAMPAIGN]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="An object a line, as the API answers.")
@click.pass_context
def command(context: click.Context, campaign_ids: tuple[str, ...], as_json: bool) -> None:
    """Recount CAMPAIGN, or every one, from its rows and compare all figures.

    A service may run meanwhile. What stood in days that retention has dropped is taken from
    the sealed sums. Exit code 0 when everything is equal, 1 when something differs, 2 when there
    is no such campaign.
    """
    equal = asyncio.run(_verify(Settings.load(), campaign_ids, as_json))
    context.exit(0 if equal else 1)


async def _verify(settings: Settings, campaign_ids: tuple[str, ...], as_json: bool) -> bool:
    checked = compared = different = 0
    unknown: list[str] = []
    async with queries(settings) as (opened, _):
        async for check in opened.verifier.check_many(campaign_ids):
            if campaign_ids and not check.figures:
                unknown.append(check.campaign_id)
                continue
            checked += 1
            compared += len(check.figures)
            different += len(check.differences)
            if as_json:
                click.echo(json.dumps(check.answer()))
            else:
                show(check)
    if unknown:
        raise RequestError(f"there are no rows and no figures of {', '.join(unknown)}")
    if not as_json:
        click.echo(f"{checked} campaigns, {compared:,} figures, {different:,} differences")
    return not different


def show(check: Check, rollup: str = "rollup", recount: str = "recount") -> None:
    """A line for a campaign, and a table of what differs."""
    wrong = check.differences
    state = f"{len(wrong):,} differ" if wrong else "equal"
    click.echo(f"{check.campaign_id}: {len(check.figures):,} figures, {state}")
    if wrong:
        shown = wrong[:_MOST_SHOWN]
        width = min(70, max(len(figure.name) for figure in shown))
        values = [(_text(figure.rollup), _text(figure.recount)) for figure in shown]
        column = max(12, *(len(value) for pair in values for value in pair))
        click.echo(f"  {'':<{width}}  {rollup:>{column}}  {recount:>{column}}")
        for figure, (one, other) in zip(shown, values, strict=True):
            name = figure.name if len(figure.name) <= width else figure.name[: width - 1] + "…"
            click.echo(f"  {name:<{width}}  {one:>{column}}  {other:>{column}}")
        if len(wrong) > len(shown):
            click.echo(f"  … and {len(wrong) - len(shown):,} more")


def _text(value: int | str | None) -> str:
    return "none" if value is None else str(value)
