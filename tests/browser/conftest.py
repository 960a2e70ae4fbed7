"""One service, one browser, and for each test a page of its own that is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import Watched, binary, missing, running
from tests.browser.playing import hurried
from tests.e2e.service import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., Watched]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        import playwright  # noqa: F401
    except ImportError:
        missing("playwright is not there: make browser")
    executable = binary()
    if executable is None:
        missing("there is no Chromium: apt-get install chromium")
    with running(executable) as browser:
        yield browser


@pytest.fixture(scope="session")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared: each test brings campaigns of its own."""
    running = hurried(tmp_path_factory.mktemp("service"))
    try:
        running.start()
        yield running
    finally:
        if running.stop() != 0:
            raise AssertionError(running.output.read_text()[-3000:])


@pytest.fixture
def open_page(browser: Browser, service: Service) -> Iterator[Open]:
    """Opens the page at a fragment; nothing in it may have gone wrong in the end."""
    contexts = []
    pages: list[Watched] = []

    def open_at(
        fragment: str = "",
        *,
        width: int = 1440,
        theme: Any = "light",
        before: Callable[[Page], None] = lambda page: None,
    ) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        pages.append(watched)
        before(watched.page)
        watched.page.goto(f"{service.url}/dashboard{fragment}")
        return watched

    yield open_at
    faults = [fault for watched in pages for fault in watched.faults]
    for context in contexts:
        context.close()
    assert faults == []
