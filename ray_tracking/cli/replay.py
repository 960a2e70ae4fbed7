"""``ray-tracking replay``: count campaigns anew from their rows, without Ray and dashboard."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Any

import click

from ray_tracking.cli.servers import queries
from ray_tracking.cli.verify import show
from ray_tracking.errors import StartError
from ray_tracking.events import EventType
from ray_tracking.jobs.carry_out import carry_out
from ray_tracking.pipeline.replay import MAX_BATCH_SIZE, ReplayRequest, ReplayStatus
from ray_tracking.settings import Settings
from ray_tracking.stores.queries import Queries
from ray_tracking.stores.recompute import Recompute

_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


class _Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        self.fail("must be ISO 8601 with an offset or Z, such as 2026-11-23T19:00:00Z", param, ctx)


@click.command()
@click.argument("campaign_ids", metavar="[CAMPAIGN]...", nargs=-1)
@click.option("--from", "since", type=_Moment(), help="The first of the events' own times.")
@click.option("--to", "until", type=_Moment(), help="Before this time.")
@click.option(
    "--type", "types", multiple=True, type=click.Choice([kind.value for kind in EventType])
)
@click.option(
    "--batch-size", type=click.IntRange(1, MAX_BATCH_SIZE), default=1000, show_default=True
)
@click.option("--no-reprocess", is_flag=True, help="Only read; no figure changes.")
@click.option(
    "--broadcast", is_flag=True, help="For scripts: who watches sees corrected figures anyway."
)
@click.option("--resume", metavar="ID", help="Go on with a replay that was begun.")
@click.option("--dry-run", is_flag=True, help="Only show the difference that it would make.")
@click.pass_context
def command(
    context: click.Context,
    campaign_ids: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    types: tuple[str, ...],
    batch_size: int,
    no_reprocess: bool,
    broadcast: bool,
    resume: str | None,
    dry_run: bool,
) -> None:
    """Count the figures of CAMPAIGN anew from its rows, and show them at once.

    Events may come meanwhile: nothing is counted twice, or missed. The span says which events
    it is about; the figures of the whole campaign are counted in any case. Ctrl-C stops it and
    changes nothing.
    """
    if bool(campaign_ids) == bool(resume) and not dry_run:
        raise click.UsageError("name the campaigns, or --resume a replay")
    settings = Settings.load()
    if dry_run:
        context.exit(asyncio.run(_try(settings, campaign_ids)))
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--to must be later than --from")
    requests = [
        ReplayRequest(
            campaign_id=campaign_id,
            since=since or _FIRST,
            until=until or _LAST,
            event_types=types or None,
            batch_size=batch_size,
            reprocess_analytics=not no_reprocess,
            broadcast_updates=broadcast,
        )
        for campaign_id in campaign_ids
    ]
    asyncio.run(_replay(settings, requests, resume))


async def _try(settings: Settings, campaign_ids: tuple[str, ...]) -> int:
    """What a replay would change; the exit code is 1 if it would."""
    changes = False
    async with queries(settings) as (opened, _):
        async for check in opened.verifier.check_many(campaign_ids):
            changes = changes or bool(check.differences)
            show(check, "now", "afterwards")
    click.echo(
        "a replay would change these figures" if changes else "a replay would change nothing"
    )
    return 1 if changes else 0


async def _replay(settings: Settings, requests: list[ReplayRequest], resume: str | None) -> None:
    async with queries(settings) as (opened, url):
        if resume is not None:
            await _carry_out(settings, opened, url, resume)
        for request in requests:
            estimate = await opened.replays.estimate(request)
            if estimate.gone:
                click.echo(
                    f"{request.campaign_id}: about {estimate.gone:,} events of this span are no "
                    "longer there; their sums are kept as they are",
                    err=True,
                )
            replay_id = f"replay-{os.urandom(8).hex()}"
            await opened.replays.create(replay_id, request, estimate.events)
            await _carry_out(settings, opened, url, replay_id)


async def _carry_out(settings: Settings, opened: Queries, url: str, replay_id: str) -> None:
    replay = await opened.replays.find(replay_id)
    if replay is None:
        raise StartError(f"there is no replay {replay_id}")
    campaign_id, estimated = replay["campaign_id"], replay["estimated_events"]
    recompute = Recompute(url, settings.database_schema, replay_id)
    began_s, before = time.monotonic(), replay["processed"]
    with click.progressbar(
        length=max(1, estimated),
        label=campaign_id,
        show_pos=True,
        item_show_func=lambda rate: rate,
    ) as bar:
        told_s = 0.0

        async def tell() -> None:
            nonlocal told_s
            if time.monotonic() - told_s < 0.2:
                return
            now = await opened.replays.find(replay_id)
            told_s = time.monotonic()
            done = now["processed"] if now else 0
            rate = (done - before) / max(0.001, told_s - began_s)
            bar.update(max(0, done - bar.pos), f"{rate:,.0f}/s")

        try:
            await carry_out(recompute, campaign_id, tell)
            bar.update(max(0, max(1, estimated) - bar.pos))
        except asyncio.CancelledError:
            await opened.replays.end(replay_id, ReplayStatus.STOPPED)
            raise
        finally:
            await recompute.close()
    done = await opened.replays.find(replay_id)
    assert done is not None, "it was there"
    took_s = max(0.001, time.monotonic() - began_s)
    rate = (done["processed"] - before) / took_s
    click.echo(
        f"{replay_id}: {done['status']}, {done['processed']:,} events "
        f"in {took_s:.1f} s ({rate:,.0f}/s)"
    )
