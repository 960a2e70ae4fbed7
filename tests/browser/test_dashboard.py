"""The page in a browser, with the real service behind it, and real events."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser import look
from tests.browser.chromium import Watched
from tests.browser.conftest import Open
from tests.browser.playing import Playing, events, headline_by_sql, rows, send
from tests.e2e.service import BIN, Service, eventually

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.timeout(180)]

WITHIN_S = 20
_TILES = ("Sent", "Delivered", "Open rate", "Click rate", "Reply rate", "Bounce rate")
_UNDER = {"opens": 3, "clicks": 4, "replies": 5, "bounces": 6}

#: Writes down every number that the headline shows, as it is shown.
_WRITE_DOWN = """() => {
  window.shown = {};
  const note = () => {
    for (const one of document.querySelectorAll(".figure")) {
      const [main] = one.querySelectorAll("[data-figure]");
      const counts = [main.textContent, ...one.querySelector(".under").innerText.split("\\n")]
        .filter((text) => /^[\\d,]+( (unique|total|hard|soft))?$/.test(text))
        .map((text) => parseInt(text.replaceAll(",", ""), 10));
      (window.shown[main.dataset.figure] ??= []).push(counts);
    }
  };
  note();
  new MutationObserver(note).observe(document.querySelector(".figures"),
    { subtree: true, childList: true, characterData: true });
}"""


def campaign(campaign_id: str, **options: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"#/campaign/{quote(campaign_id, safe='')}" + (f"?{query}" if query else "")


def live(watched: Watched) -> bool:
    return watched.text("#connection").startswith("live")


def headline(watched: Watched) -> dict[str, str]:
    shown = {title: watched.figure(title) for title in _TILES}
    for name, number in _UNDER.items():
        shown[name] = watched.text(f".figure:nth-of-type({number}) .under")
    return shown


def complete(watched: Watched) -> bool:
    return all(re.search(r"\w", text) for text in watched.page.locator(".value").all_inner_texts())


def shows_what_sql_says(watched: Watched, service: Service, campaign_id: str) -> None:
    def same() -> bool:
        return headline(watched) == headline_by_sql(service, campaign_id)

    try:
        eventually(same, WITHIN_S, "the page shows what SQL says")
    except AssertionError:
        assert headline(watched) == headline_by_sql(service, campaign_id)


def test_an_empty_service_says_what_to_do_first(open_page: Open, service: Service) -> None:
    """And what it says works: the campaign is there without anybody reloading."""
    watched = open_page()
    command = watched.page.inner_text(".welcome pre >> nth=0")
    assert "curl" in command
    assert "simulate" in watched.page.inner_text(".welcome pre >> nth=1")
    assert look.clipped(watched) == look.overlapping(watched) == look.inaccessible(watched) == []

    subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=30)

    watched.page.get_by_role("link", name="spring").wait_for()
    watched.page.get_by_role("link", name="spring").click()
    eventually(lambda: "1 total" in headline(watched)["opens"], WITHIN_S, "the open is shown")


@pytest.fixture(scope="module")
def played(service: Service) -> str:
    """A campaign that is over, beside some others, one with a name that is not an easy one."""
    for name in ("autumn", "q4/emea & apac, the second " + "very-" * 12 + "long-one", "winter"):
        send(service, events(name, 30, over=timedelta(hours=5)))
    send(service, events("looked-at", 400, over=timedelta(minutes=50)))
    return "looked-at"


def test_the_figures_rise_to_what_sql_says_and_never_go_back(
    open_page: Open, service: Service
) -> None:
    campaign_id = "rising"
    watched = open_page(campaign(campaign_id))
    watched.page.wait_for_selector(".welcome")
    watched.page.evaluate(_WRITE_DOWN)
    playing = Playing(
        service, events(campaign_id, 1500, over=timedelta(minutes=4)), size=25, pause_s=0.02
    )
    playing.start()
    eventually(lambda: live(watched) and watched.figure("Sent") > "1", WITHIN_S, "it has begun")
    playing.finish()

    shows_what_sql_says(watched, service, campaign_id)
    shown: dict[str, list[list[int]]] = watched.page.evaluate("window.shown")
    steps = {tuple(counts) for counts in shown["Sent"]}
    assert len(steps) > 10, "it rose while it was looked at"
    for title, noted in shown.items():
        for name, counts in enumerate(zip(*[n for n in noted if n], strict=False)):
            assert list(counts) == sorted(counts), f"{title} {name}"


def test_what_the_simulation_plays_arrives(open_page: Open, service: Service) -> None:
    """Pixels and tracked links among it, over the public routes."""
    command = [str(BIN / "ray-tracking"), "simulate", "--url", service.url]
    options = ["--events", "600", "--rate", "200", "--campaigns", "1", "--seed", "7"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=60)
    (row,) = rows(
        service,
        "SELECT campaign_id FROM events ORDER BY received_at DESC LIMIT 1",
    )

    watched = open_page(campaign(row["campaign_id"]))

    shows_what_sql_says(watched, service, row["campaign_id"])


def test_everything_that_a_campaign_is_made_of_is_shown(
    open_page: Open, service: Service, played: str
) -> None:
    watched = open_page(campaign(played))
    shows_what_sql_says(watched, service, played)

    def listed(panel: str) -> dict[str, str]:
        section = watched.page.locator(f"section[aria-labelledby=panel-{panel}]")
        return {
            row.locator("th span").first.inner_text(): row.locator("td").first.inner_text()
            for row in section.locator("tbody tr").all()
        }

    clicks = rows(
        service,
        "SELECT link_url, count(*) AS n FROM events WHERE campaign_id = $1 "
        "AND event_type = 'LINK_CLICK' GROUP BY link_url",
        played,
    )
    expected = {row["link_url"].removeprefix("https://"): f"{row['n']:,}" for row in clicks}
    eventually(lambda: listed("links") == expected, WITHIN_S, "links as in SQL")
    bounces = rows(
        service,
        "SELECT initcap(bounce_type) AS name, count(*) AS n FROM events WHERE campaign_id = $1 "
        "AND event_type = 'EMAIL_BOUNCE' GROUP BY bounce_type",
        played,
    )
    expected = {row["name"]: f"{row['n']:,}" for row in bounces}
    eventually(lambda: listed("bounces").items() >= expected.items(), WITHIN_S, "bounces as in SQL")
    assert {"Desktop", "Mobile", "Tablet"} <= listed("devices").keys()
    assert {"Germany", "United States"} <= listed("countries").keys()


def test_behind_the_timeline_is_a_table_that_adds_up(
    open_page: Open, service: Service, played: str
) -> None:
    watched = open_page(campaign(played, bucket="minute"))
    watched.page.click("summary")

    def sums() -> list[int]:
        lines = watched.page.locator(".scroll tbody tr").all_inner_texts()
        columns = zip(*[line.split("\t")[1:] for line in lines], strict=True)
        return [sum(int(cell.replace(",", "")) for cell in column) for column in columns]

    types = ("SENT", "DELIVERED", "OPEN", "CLICK", "REPLY", "BOUNCE")
    counts = {
        row["event_type"]: row["n"]
        for row in rows(
            service,
            "SELECT event_type, count(*) AS n FROM events WHERE campaign_id = $1 GROUP BY 1",
            played,
        )
    }
    names = ["LINK_CLICK" if name == "CLICK" else f"EMAIL_{name}" for name in types]
    eventually(
        lambda: sums() == [counts[name] for name in names], WITHIN_S, "the table adds up to SQL"
    )


def test_a_lost_connection_comes_back_by_itself_with_what_was_missed(
    open_page: Open, service: Service
) -> None:
    campaign_id = "interrupted"
    send(service, events(campaign_id, 50, seed=1, over=timedelta(minutes=2)))
    sockets: list[Any] = []
    asked: list[str] = []
    told: list[str] = []

    def between(socket: Any) -> None:
        server = socket.connect_to_server()
        sockets.append(socket)

        def forward(message: Any) -> None:
            asked.append(message)
            server.send(message)

        def answer(message: Any) -> None:
            told.append(message)
            socket.send(message)

        socket.on_message(forward)
        server.on_message(answer)

    def subscriptions() -> list[str]:
        return [message for message in asked if "subscribe_campaign" in message]

    def answered() -> bool:
        return any('"subscribed"' in message for message in told)

    watched = open_page(
        campaign(campaign_id),
        before=lambda page: page.route_web_socket(re.compile("/ws$"), between),
    )
    eventually(lambda: live(watched), WITHIN_S, "live")
    shows_what_sql_says(watched, service, campaign_id)
    # Figures may have come from the API; a cursor comes with the answer.
    eventually(lambda: live(watched) and answered(), WITHIN_S, "subscribed")

    sockets[-1].close(code=1012)
    watched.page.wait_for_selector("#connection[data-state=waiting]")
    send(service, events(campaign_id, 50, seed=2, over=timedelta(minutes=2)))
    eventually(lambda: live(watched) and len(subscriptions()) == 2, WITHIN_S, "live again")

    shows_what_sql_says(watched, service, campaign_id)
    assert '"cursor"' in subscriptions()[-1], "it resumes where it was"


def test_a_lower_figure_counts_only_as_a_correction(open_page: Open, service: Service) -> None:
    campaign_id = "corrected"
    send(service, events(campaign_id, 20, over=timedelta(minutes=2)))
    sockets: list[Any] = []

    def between(socket: Any) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    def frame(**data: Any) -> str:
        return json.dumps(
            {"event": "campaign_progress", "data": {"campaignId": campaign_id, **data}}
        )

    watched = open_page(
        campaign(campaign_id),
        before=lambda page: page.route_web_socket(re.compile("/ws$"), between),
    )
    shows_what_sql_says(watched, service, campaign_id)

    sockets[-1].send(frame(counters={"sent": 3}))
    sockets[-1].send(frame(counters={"sent": 1_000}))
    eventually(lambda: watched.figure("Sent") == "1,000", WITHIN_S, "what is higher is shown")
    sockets[-1].send(frame(counters={"sent": 999, "delivered": 998}))
    eventually(lambda: watched.figure("Delivered") == "998", WITHIN_S, "the last frame is shown")
    assert watched.figure("Sent") == "1,000"
    sockets[-1].send(frame(counters={"sent": 999}, correction=True))
    eventually(lambda: watched.figure("Sent") == "999", WITHIN_S, "the correction is shown")


def test_without_a_socket_the_page_asks_and_says_so(open_page: Open, service: Service) -> None:
    campaign_id = "polled"

    def refuse(page: Any) -> None:
        page.route_web_socket(re.compile("/ws$"), lambda socket: socket.close(code=1011))

    watched = open_page(campaign(campaign_id), before=refuse)
    watched.page.wait_for_selector("#connection[data-state=polling]")
    assert "No live connection" in watched.text("#notice")

    send(service, events(campaign_id, 40, over=timedelta(minutes=2)))

    shows_what_sql_says(watched, service, campaign_id)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("view", ["campaigns", "campaign", "system"])
def test_it_looks_as_it_should(
    open_page: Open, played: str, view: str, width: int, theme: str
) -> None:
    """Nothing is cut off, nothing lies on something else, and axe finds nothing."""
    fragment = {"campaigns": "", "campaign": campaign(played), "system": "#/system"}[view]
    watched = open_page(fragment, width=width, theme=theme)
    eventually(lambda: live(watched), WITHIN_S, "live")
    watched.page.wait_for_selector("tbody tr")
    if view != "campaigns":
        watched.page.wait_for_selector("canvas")
        eventually(lambda: complete(watched), WITHIN_S, "every figure is there")

    assert look.clipped(watched) == []
    assert look.overlapping(watched) == []
    assert look.inaccessible(watched) == []


def test_the_checks_of_looks_see_what_is_wrong(open_page: Open, played: str) -> None:
    watched = open_page(campaign(played), width=360)
    watched.page.wait_for_selector("tbody tr")
    watched.page.evaluate(
        """() => {
          const [first, second] = document.querySelectorAll(".figure");
          second.style.marginLeft = "-40px";
          first.querySelector(".value").style.width = "10px";
          document.querySelector("h1").style.color = "#f4f4f4";
          document.querySelector("h1").style.width = "500px";
        }"""
    )

    assert any("cut off" in fault for fault in look.clipped(watched))
    assert any("the page is" in fault for fault in look.clipped(watched))
    assert look.overlapping(watched) != []
    assert any("color-contrast" in fault for fault in look.inaccessible(watched))


def test_it_can_be_used_with_the_keyboard_alone(open_page: Open, played: str) -> None:
    watched = open_page()
    page = watched.page
    page.wait_for_selector("tbody tr")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    page.keyboard.type("looked")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('looked-at')")
    assert page.evaluate("document.activeElement.id") == "main"
    page.wait_for_selector(".why")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "why":
            break
    tip = page.locator(".tip").first
    assert tip.is_visible()
    assert "EMAIL_SENT" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_theme_is_the_systems_until_it_is_chosen(open_page: Open) -> None:
    watched = open_page(theme="dark")
    page = watched.page

    def theme() -> str:
        found: str = page.evaluate("document.documentElement.dataset.theme")
        return found

    assert theme() == "dark"
    page.get_by_role("button", name="Change to the light theme").click()
    assert theme() == "light"
    page.reload()
    assert theme() == "light"


def test_the_feed_stays_readable_however_much_comes(open_page: Open, service: Service) -> None:
    """Few lines at a time, the rest counted, none while somebody reads."""
    campaign_id = "much"
    send(service, events(campaign_id, 20, over=timedelta(minutes=1)))
    watched = open_page(campaign(campaign_id, bucket="live"))
    eventually(lambda: live(watched), WITHIN_S, "live")
    items = events(campaign_id, 20_000, seed=2, over=timedelta(minutes=2))
    playing = Playing(service, items, size=1000)
    playing.start()

    watched.page.wait_for_selector(".feed .skipped:has-text('more')")
    assert watched.page.locator(".feed li").count() <= 60
    watched.page.hover(".feed")
    watched.page.wait_for_selector(".feed-state:has-text('Paused while you read')")
    reading = watched.page.inner_text(".feed")
    watched.page.wait_for_selector(".feed-state:has-text('new')")
    assert watched.page.inner_text(".feed") == reading
    playing.finish()

    shows_what_sql_says(watched, service, campaign_id)
