"""``ray-tracking dead-letters``: events that Postgres refused, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import click

from ray_tracking.cli.service import Service, reach, reason_of, service_options
from ray_tracking.pipeline.letters import LetterStatus

_DONE = (200, 202)
#: The letter, or the log, does not allow it; the others may still go.
_NOT_DONE = (404, 409, 503)

_campaign = click.option("--campaign", "campaign_id", help="Only of this campaignId.")
_reason = click.option(
    "--reason", help="Only where this is a part of the reason, or is the SQLSTATE."
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def command() -> None:
    """Look at the events that Postgres refused, send them again, or give them up.

    Exit code 0 when everything was done, 1 when something was not, 2 when it went wrong.
    """


@command.command("list")
@service_options("admin")
@_campaign
@_reason
@click.option("--status", type=click.Choice([status.value for status in LetterStatus]))
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--after", help="Go on where the page before ended.")
@click.option("--json", "as_json", is_flag=True, help="As the API gives it.")
def browse(
    url: str | None,
    api_key: str | None,
    campaign_id: str | None,
    reason: str | None,
    status: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List letters, those that failed last first."""
    query = _given(
        campaignId=campaign_id, reason=reason, status=status, limit=str(limit), after=after
    )

    async def ask(service: Service) -> dict[str, Any]:
        return await _get(service, "/dead-letters", query)

    page = asyncio.run(_with(url, api_key, ask))
    if as_json:
        click.echo(json.dumps(page, indent=2))
        return
    for line in _table(page["items"]):
        click.echo(line)
    if page["next"]:
        click.echo(f"there are more: --after {page['next']}", err=True)


@command.command()
@service_options("admin")
@click.argument("letter_id", metavar="ID", type=click.UUID)
def show(url: str | None, api_key: str | None, letter_id: UUID) -> None:
    """Show one letter, with its event, as JSON."""

    async def ask(service: Service) -> dict[str, Any]:
        return await _get(service, _path(letter_id))

    click.echo(json.dumps(asyncio.run(_with(url, api_key, ask)), indent=2))


@command.command()
@service_options("admin")
@click.option("--all", "everything", is_flag=True, help="All that are dead, or all chosen ones.")
@_campaign
@_reason
@_yes
@click.argument("letter_ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.pass_context
def redrive(
    context: click.Context,
    url: str | None,
    api_key: str | None,
    everything: bool,
    campaign_id: str | None,
    reason: str | None,
    yes: bool,
    letter_ids: tuple[UUID, ...],
) -> None:
    """Send letters again: each ID, or --all.

    Do it when the cause is mended. What fails again is dead again.
    """
    if everything == bool(letter_ids):
        raise click.UsageError("name the letters, or say --all")
    chosen = _given(campaignId=campaign_id, reason=reason)
    if letter_ids:
        if chosen:
            raise click.UsageError("--campaign and --reason choose from --all")
        done = _each(url, api_key, letter_ids, "POST", "/redrive", "redriven")
        context.exit(0 if done else 1)
    if not yes:
        which = "".join(f", {name} {text!r}" for name, text in chosen.items())
        click.confirm(f"Send all dead letters again{which}?", abort=True)

    async def ask(service: Service) -> dict[str, Any]:
        # As long as it takes: the service works on, whether somebody waits or not.
        code, body = await service.ask("POST", "/dead-letters/redrive", value=chosen, within_s=None)
        if "redriven" not in body:
            raise service.refusal(code, body)
        return body

    body = asyncio.run(_with(url, api_key, ask))
    click.echo(f"redriven {body['redriven']}, failed {body['failed']}")
    if body["failed"]:
        click.echo(f"{reason_of(body)}, in {body['retryAfter']} s", err=True)
        context.exit(1)


@command.command()
@service_options("admin")
@_yes
@click.argument("letter_ids", metavar="ID...", nargs=-1, type=click.UUID, required=True)
@click.pass_context
def discard(
    context: click.Context,
    url: str | None,
    api_key: str | None,
    yes: bool,
    letter_ids: tuple[UUID, ...],
) -> None:
    """Give letters up: they never become rows."""
    if not yes:
        click.confirm(f"Give up {len(letter_ids)} events for good?", abort=True)
    done = _each(url, api_key, letter_ids, "DELETE", "", "discarded")
    context.exit(0 if done else 1)


async def _with(
    url: str | None, api_key: str | None, ask: Callable[[Service], Awaitable[Any]]
) -> Any:
    async with reach(url, api_key) as service:
        return await ask(service)


async def _get(service: Service, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
    code, body = await service.ask("GET", path, query=query)
    if code != 200:
        raise service.refusal(code, body)
    return body


def _each(
    url: str | None,
    api_key: str | None,
    letter_ids: Sequence[UUID],
    method: str,
    action: str,
    done: str,
) -> bool:
    """Do it with one letter after the other, and say of each whether it was done."""

    async def ask(service: Service) -> bool:
        all_done = True
        for letter_id in letter_ids:
            code, body = await service.ask(method, _path(letter_id) + action)
            if code in _DONE:
                click.echo(f"{letter_id}  {done}")
            elif code in _NOT_DONE:
                click.echo(f"{letter_id}  not {done}: {reason_of(body)}")
                all_done = False
            else:
                raise service.refusal(code, body)
        return all_done

    all_done: bool = asyncio.run(_with(url, api_key, ask))
    return all_done


def _path(letter_id: UUID) -> str:
    return f"/dead-letters/{letter_id}"


def _given(**options: str | None) -> dict[str, str]:
    return {name: text for name, text in options.items() if text is not None}


def _table(letters: Sequence[dict[str, Any]]) -> list[str]:
    """One line a letter, in columns, under their names."""
    lines = [("ID", "FAILED AT", "STATUS", "TRIES", "TYPE", "CAMPAIGN", "REASON")]
    for letter in letters:
        lines.append(
            (
                letter["id"],
                letter["failedAt"],
                letter["status"],
                str(letter["attempts"]),
                letter["eventType"],
                _plain(letter["campaignId"] or "-"),
                _plain(letter["failureReason"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _plain(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
