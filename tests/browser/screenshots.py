"""
``make screenshots``: the page in all its states, of a service that is started for it.

One of them is in the README: ``make screenshots ARGS=--readme`` renews it.
"""

from __future__ import annotations

import random
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.browser.chromium import ROOT, Watched, binary, running
from tests.browser.playing import Playing, events, hurried, send
from tests.e2e.service import Service, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OUT = ROOT / "build" / "screenshots"
README = ROOT / "docs" / "dashboard.png"
_WIDTHS = {"narrow": 360, "middle": 768, "wide": 1440}
_CAMPAIGN = "spring-launch"
_BUSY = "black-friday"
_OTHERS = ("autumn-sale", "onboarding/welcome", "q4-outreach-emea", "re-engage", "winter-sale")


class Camera:
    """
    Takes pictures.

    Args:
        browser: Of.
        url: Of the page.
    """

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url

    def take(
        self, name: str, fragment: str = "", *, wait_s: float = 2.0, without: tuple[str, ...] = ()
    ) -> None:
        """One view in each width but some, light and dark."""
        for width_name, width in _WIDTHS.items():
            if width_name in without:
                continue
            for theme in ("light", "dark"):
                path = OUT / f"{name}-{width_name}-{theme}.png"
                self.picture(path, fragment, width, theme, wait_s=wait_s)

    def picture(
        self, path: Path, fragment: str, width: int, theme: Any, *, wait_s: float, height: int = 0
    ) -> None:
        """One of them: the whole page, or only its first so many pixels."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height or 900}, color_scheme=theme
        )
        watched = Watched(context.new_page())
        watched.page.goto(self._url + fragment)
        watched.page.wait_for_timeout(wait_s * 1000)
        watched.page.screenshot(path=path, full_page=not height)
        for fault in watched.faults:
            click.echo(f"{path.name}: {fault}", err=True)
        context.close()
        click.echo(path.relative_to(ROOT))


@click.command()
@click.option("--readme", is_flag=True, help="Only the one that stands in the README.")
def main(readme: bool) -> None:
    """Take pictures of the page."""
    executable = binary()
    if executable is None:
        raise click.ClickException("there is no Chromium: apt-get install chromium")
    OUT.mkdir(parents=True, exist_ok=True)
    README.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, running(executable) as browser:
        service = hurried(Path(directory))
        service.start()
        try:
            _take_all(service, Camera(browser, f"{service.url}/dashboard"), only_readme=readme)
        finally:
            service.stop()


def _take_all(service: Service, camera: Camera, *, only_readme: bool) -> None:
    here = f"#/campaign/{_CAMPAIGN}"
    if not only_readme:
        camera.take("empty", wait_s=1.5)
    for name in _OTHERS:
        send(service, events(name, 300, over=timedelta(hours=20)))
    items = events(_CAMPAIGN, 4000, over=timedelta(minutes=100))
    send(service, items)
    eventually(lambda: _counted(service) >= len(items), 30, "all is counted")
    if not only_readme:
        camera.take("campaigns")
        camera.take("campaign", here)
        camera.take("system", "#/system", wait_s=6)
        items = events(_BUSY, 120_000, over=timedelta(minutes=1))
        busy = Playing(service, items, size=1000, pause_s=0.05)
        busy.start()
        camera.take("busy", f"#/campaign/{_BUSY}?bucket=live", wait_s=6, without=("middle",))
        camera.take("busy-system", "#/system", wait_s=6, without=("middle",))
        busy.stop()
    items = events(_CAMPAIGN, 3000, seed=3, over=timedelta(seconds=40))
    random.Random(1).shuffle(items)
    calm = Playing(service, items, size=4, pause_s=0.15)
    calm.start()
    camera.picture(README, f"{here}?bucket=minute", 1280, "light", wait_s=8, height=940)
    calm.stop()


def _counted(service: Service) -> int:
    stats = service.call("GET", f"/campaigns/{_CAMPAIGN}/stats").body
    names = ("sent", "delivered", "opens", "clicks", "replies")
    found: int = sum(stats[name] for name in names) + sum(stats["bounces"].values())
    return found


if __name__ == "__main__":
    main()
