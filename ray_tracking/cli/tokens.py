"""``ray-tracking tokens``: mint and read the tokens inside tracking links, offline."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from ray_tracking.errors import SettingsError
from ray_tracking.pipeline.rows import iso_utc
from ray_tracking.settings import Settings
from ray_tracking.sources.keys import read_keys
from ray_tracking.sources.tokens import ClickToken, TokenKeys


@click.group()
def command() -> None:
    """Mint and read the tokens inside tracking links.

    With EMAIL_ENCRYPTION_KEY, or the key in the data directory.
    """


@command.command()
@click.option("--campaign", "campaign_id", required=True, help="campaignId")
@click.option("--lead", "lead_id", required=True, help="leadId")
@click.option("--email", "email_id", required=True, help="emailId")
@click.argument("links", nargs=-1)
def mint(campaign_id: str, lead_id: str, email_id: str, links: tuple[str, ...]) -> None:
    """Print the pixel URL, and a tracking URL for each of LINKS."""
    settings = Settings.load()
    keys = _keys(settings)
    now_s = int(time.time())
    base = settings.public_base_url
    pixel = keys.mint_open(campaign_id, lead_id, email_id, minted_at_s=now_s)
    click.echo(f"{base}/pixel/{pixel}.gif")
    for link in links:
        token = keys.mint_click(campaign_id, lead_id, email_id, link, minted_at_s=now_s)
        click.echo(f"{base}/click/{token}")


@command.command()
@click.argument("token")
def read(token: str) -> None:
    """Show what TOKEN, or the URL that it stands in, says."""
    keys = _keys(Settings.load())
    token = token.rsplit("/", 1)[-1].removesuffix(".gif")
    said = keys.read_open(token) or keys.read_click(token)
    if said is None:
        raise SettingsError("this is not a token that the present keys made")
    click.echo(f"kind        {'click' if isinstance(said, ClickToken) else 'open'}")
    click.echo(f"campaignId  {said.campaign_id}")
    click.echo(f"leadId      {said.lead_id}")
    click.echo(f"emailId     {said.email_id}")
    if isinstance(said, ClickToken):
        click.echo(f"linkUrl     {said.url}")
        if said.link_id is not None:
            click.echo(f"linkId      {said.link_id}")
    click.echo(f"minted      {iso_utc(datetime.fromtimestamp(said.minted_at_s, UTC))}")


def _keys(settings: Settings) -> TokenKeys:
    return TokenKeys(read_keys(settings.encryption_keys, settings.data_dir))
