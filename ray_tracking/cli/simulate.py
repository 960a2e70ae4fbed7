"""
``ray-tracking simulate``: believable campaigns, played against a running service.

Shows what the service does with traffic as it really comes, and leaves the client's
own memory of it behind (``--acknowledged``). Ctrl-C ends it with the same summary.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import aiohttp
import click
import orjson
import uvloop

from ray_tracking.cli.service import API_KEY_VARIABLE, KEY_HINT, not_a_url
from ray_tracking.cli.simulate_player import Player
from ray_tracking.cli.simulate_sender import AccessRefused, Acknowledged, Sender
from ray_tracking.cli.simulate_tally import Tally
from ray_tracking.errors import StartError
from ray_tracking.settings import Settings
from ray_tracking.sources.simulation import Planned, Shape, plan

_DEFAULT_DURATION_S = 30.0
#: Each campaign gets less than half of what the default limits allow it.
_RATE_PER_CAMPAIGN = 80
_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.2
_SHARE = click.FloatRange(0, 1)


@click.command()
@click.option("--url", help="Of the service; else from the settings.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=200, show_default=True,
              help="Events a second, whether it keeps up or not.")  # fmt: skip
@click.option("--duration", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="How long; 30 where --events is not given.")  # fmt: skip
@click.option("--events", type=click.IntRange(1), help="How many events.")
@click.option("--campaigns", type=click.IntRange(1, 10_000),
              help="How many; by default enough to stay under the default limits.")  # fmt: skip
@click.option("--batch", "batch_share", type=_SHARE, default=0.3, show_default=True,
              help="Share of the API's events that go in batches.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--duplicates", type=_SHARE, default=0.01, show_default=True,
              help="Share of the API's events that are sent twice.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1),
              help="The same seed makes the same events, with the same ids.")  # fmt: skip
@click.option("--api-key", envvar=API_KEY_VARIABLE, help="A key with the scope ingest.")
@click.option("--no-retry", is_flag=True, help="Send everything once.")
@click.option("--retry-for", type=click.FloatRange(0), default=30, show_default=True,
              metavar="SECONDS", help="How long an event is tried again; keep it well under "
              "the service's idempotency window.")  # fmt: skip
@click.option("--acknowledged", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Append a line of JSON for each event, after its acknowledgement.")  # fmt: skip
def command(
    url: str | None,
    rate: float,
    duration: float | None,
    events: int | None,
    campaigns: int | None,
    batch_share: float,
    batch_size: int,
    duplicates: float,
    seed: int | None,
    api_key: str | None,
    no_retry: bool,
    retry_for: float,
    acknowledged: Path | None,
) -> None:
    """Play campaigns against a running service, over its public API."""
    base = (url or Settings.load().public_base_url).rstrip("/")
    if duration is None:
        duration = math.inf if events else _DEFAULT_DURATION_S
    limit = math.inf if events is None else events
    count = min(limit, max(1, math.ceil(rate * duration))) if duration < math.inf else limit
    shape = Shape(
        seed=secrets.randbits(32) if seed is None else seed,
        start_s=time.time(),
        rate_per_s=rate,
        campaigns=campaigns or max(3, math.ceil(rate / _RATE_PER_CAMPAIGN)),
        batch_share=batch_share,
        repeat_share=duplicates,
    )
    click.echo(
        f"{count:,} events at {rate:,g}/s in {shape.campaigns} campaigns to {base} "
        f"(--seed {shape.seed})",
        err=True,
    )
    tally = Tally()
    with _memory(acknowledged) as remember:
        options = {"retry_for_s": 0 if no_retry else retry_for, "batch_size": batch_size}
        elapsed_s = uvloop.run(
            _play(base, api_key, tally, remember, shape, int(count), duration, **options)
        )
    click.echo(tally.summary(elapsed_s, rate))
    if not tally.arrived:
        raise SystemExit(1)


async def _play(
    url: str,
    api_key: str | None,
    tally: Tally,
    remember: Acknowledged,
    shape: Shape,
    count: int,
    duration_s: float,
    **options: Any,
) -> float:
    """How many seconds events were started for."""
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=15)
    connector = aiohttp.TCPConnector(limit=128)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await _check_there(session, url)
        sender = Sender(session, url, tally, remember, api_key)
        player = Player(sender, tally, **options)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, player.stop)
        started_s = time.monotonic()
        reporter = asyncio.create_task(_report(tally, count, started_s))
        try:
            planned = islice(plan(shape), count)
            ended_s = await player.play(planned, shape.rate_per_s, started_s + duration_s)
        except AccessRefused as error:
            raise StartError(f"{url} refuses: {error}; {KEY_HINT}") from None
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
    return ended_s - started_s


async def _check_there(session: aiohttp.ClientSession, url: str) -> None:
    try:
        async with session.get(f"{url}/livez") as response:
            await response.read()
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise not_a_url(url) from None
    except (aiohttp.ClientError, OSError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error) or type(error).__name__
        raise StartError(
            f"nothing answers at {url} ({reason}); start the service with `ray-tracking run`, "
            "or name another with --url"
        ) from None


async def _report(tally: Tally, count: int, started_s: float) -> None:
    """A bar for people, a line now and then for files."""
    if not sys.stderr.isatty():
        while True:
            await asyncio.sleep(_LINE_EVERY_S)
            click.echo(tally.line(time.monotonic() - started_s), err=True)
    with click.progressbar(length=count, file=sys.stderr, show_pos=True) as bar:
        while True:
            bar.update(tally.total - bar.pos)
            await asyncio.sleep(_BAR_EVERY_S)


@contextmanager
def _memory(path: Path | None) -> Iterator[Acknowledged]:
    """
    What the client remembers of its acknowledged events: a line each, flushed each.

    An event that was sent twice has two lines. A hit has no ``eventId``: it is known by
    its mail, and a click by its link as well.
    """
    if path is None:
        yield lambda planned, durable, duplicate: None
        return
    try:
        file: IO[bytes] = path.open("ab", buffering=0)
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from None
    with file:

        def remember(planned: Planned, durable: bool, duplicate: bool | None) -> None:
            line = {name: planned.data.get(name) for name in _REMEMBERED}
            line |= {
                "eventType": planned.event_type,
                "via": planned.via,
                "durable": durable,
                "duplicate": duplicate,
            }
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

        yield remember


_REMEMBERED = ("eventId", "campaignId", "accountId", "leadId", "emailId", "linkUrl")
