"""Enrichment: what a hit says about device and place, and nothing that it does not say."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_tracking.pipeline.enrich import MAX_AGENT_CHARS, _describe, device_info, enrich

SMART_TV = "Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) AppleWebKit/538.1 (KHTML, like Gecko)"
FIRE_TV = "Mozilla/5.0 (Linux; Android 9; AFTMM) AppleWebKit/537.36 (KHTML, like Gecko)"
IE_8 = "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; Tablet PC 2.0)"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
THUNDERBIRD = "Mozilla/5.0 (Windows NT 10.0; rv:102.0) Gecko/20100101 Thunderbird/102.10.0"
OUTLOOK_IOS = "Outlook-iOS/723.4027091.prod.iphone (3.24.0)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko)"
)
IPAD = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
ANDROID = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)"
GOOGLEBOT = "(compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CHROME = f"{WINDOWS} Chrome/124.0.0.0 Safari/537.36"

HIT = {"campaignId": "c", "leadId": "l", "emailId": "e", "timestamp": "2026-11-23T19:00:00Z"}
PARIS = {"country": "FR", "city": "Paris"}


def info(*values: str | None) -> dict[str, str]:
    names = ("type", "os", "browser", "version")
    return {name: value for name, value in zip(names, values, strict=True) if value}


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (CHROME, info("desktop", "Windows", "Chrome", "124.0")),
        (f"{MAC} Version/17.4 Safari/605.1.15", info("desktop", "Mac OS X", "Safari", "17.4")),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
            info("desktop", "Linux", "Firefox", "125.0"),
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/124.0.0.0 Safari/537.36",
            info("desktop", "Chrome OS", "Chrome", "124.0"),
        ),
        (
            f"{IPHONE} Version/17.4 Mobile/15E148 Safari/604.1",
            info("mobile", "iOS", "Mobile Safari", "17.4"),
        ),
        (
            f"{ANDROID} Chrome/124.0.0.0 Mobile Safari/537.36",
            info("mobile", "Android", "Chrome Mobile", "124.0"),
        ),
        (
            f"{ANDROID} Chrome/124.0.0.0 Safari/537.36",
            info("tablet", "Android", "Chrome", "124.0"),
        ),
        (
            "Mozilla/5.0 (Android 14; Tablet; rv:125.0) Gecko/125.0 Firefox/125.0",
            info("tablet", "Android", "Firefox Mobile", "125.0"),
        ),
        (
            f"{IPAD} Version/16.6 Mobile/15E148 Safari/604.1",
            info("tablet", "iOS", "Mobile Safari", "16.6"),
        ),
        (
            "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17328; Pro)",
            info("desktop", "Windows", "Outlook", "2016"),
        ),
        (OUTLOOK_IOS, info("mobile", "iOS", "Outlook-iOS", "3.24")),
        (IE_8, info("desktop", "Windows", "IE", "8.0")),
        (THUNDERBIRD, info("desktop", "Windows", "Thunderbird", "102.10")),
        (f"Mozilla/5.0 {GOOGLEBOT}", info("bot", None, "Googlebot", "2.1")),
        (
            f"{ANDROID} Chrome/124.0.0.0 Mobile Safari/537.36 {GOOGLEBOT}",
            info("bot", "Android", "Googlebot", "2.1"),
        ),
        ("curl/8.4.0", info(None, None, "curl", "8.4")),
    ],
)
def test_a_user_agent_tells_device_system_and_browser(agent: str, expected: dict[str, str]) -> None:
    assert device_info(agent) == expected


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (GMAIL, "GoogleImageProxy"),
        (
            f"{WINDOWS} Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0",
            "GoogleImageProxy",
        ),
        (
            "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
            "YahooMailProxy",
        ),
        (f"{CHROME} OutlookImageProxy", "OutlookImageProxy"),
        ("SeznamEmailProxy/2.0.15", "SeznamEmailProxy"),
    ],
)
def test_a_proxy_of_a_mail_provider_has_no_system_and_no_location(agent: str, name: str) -> None:
    """Both would be the provider's, and thousands of readers would sit in one data centre."""
    enriched = enrich(HIT | {"userAgent": agent, "ipAddress": "66.249.84.1"}, locate=paris)

    assert enriched["deviceInfo"] == {"type": "proxy", "browser": name}
    assert "locationInfo" not in enriched


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (MAC, info("desktop", "Mac OS X", "Apple Mail", None)),
        (f"{IPHONE} Mobile/15E148", info("mobile", "iOS", "Apple Mail", None)),
        (f"{IPAD} Mobile/15E148", info("tablet", "iOS", "Apple Mail", None)),
    ],
)
def test_apple_mail_is_named_without_the_version_of_webkit(
    agent: str, expected: dict[str, str]
) -> None:
    """ua-parser calls it "Apple Mail 605.1" (uap-core#528)."""
    assert device_info(agent) == expected


def test_another_app_on_an_iphone_is_not_apple_mail() -> None:
    agent = f"{IPHONE} Mobile/15E148 [FBAN/FBIOS;FBAV/438.0.0.33.118]"

    assert device_info(agent) == info("mobile", "iOS", "Facebook", "438.0")


@pytest.mark.parametrize(
    "agent", ["", "   ", "Mozilla/5.0", " Mozilla/5.0 ", "\x00", "?", None, 7, b"x"]
)
def test_what_says_nothing_gives_no_device(agent: object) -> None:
    """A bare Mozilla/5.0 is all that Apple's Mail Privacy Protection lets through."""
    assert device_info(agent) is None
    assert enrich(HIT | {"userAgent": agent}, locate=nowhere) == HIT | {"userAgent": agent}


def test_the_hits_of_mail_proxies_need_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most of all opens, and must not depend on what ua-parser learns to call them."""
    _describe.cache_clear()
    monkeypatch.setattr("ray_tracking.pipeline.enrich._resolver", None)

    assert device_info("Mozilla/5.0") is None
    assert device_info(GMAIL) == {"type": "proxy", "browser": "GoogleImageProxy"}


@pytest.mark.parametrize(
    "agent",
    [
        f"{SMART_TV} Safari/538.1",
        f"{FIRE_TV} Chrome/88.0.1.2 Safari/537.36",
        "Dalvik/2.1.0 (Linux; U; Android 13; SM-G991B Build/TP1A.220624.014)",
    ],
)
def test_a_device_of_no_known_type_has_no_type(agent: str) -> None:
    device = device_info(agent)

    assert device is not None
    assert "type" not in device


@given(st.text(max_size=3000) | st.text("(;/)._ AMozilandrTVbe0123456789\x00\ud800", max_size=3000))
def test_no_user_agent_raises_or_yields_what_an_event_could_not_hold(agent: str) -> None:
    """Postgres refuses NUL in text, and nothing takes a lone surrogate."""
    device = device_info(agent)

    assert device is None or set(device) <= {"type", "os", "browser", "version"}
    for value in (device or {}).values():
        assert 1 <= len(value) <= 2048
        assert value.encode()
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value)


def test_a_user_agent_is_read_no_further_than_its_cap() -> None:
    padding = " " * MAX_AGENT_CHARS

    assert device_info(CHROME + padding + "Googlebot/2.1") == device_info(CHROME)
    assert device_info(padding + CHROME) is None


def test_a_flood_of_user_agents_does_not_grow_the_memory() -> None:
    limit = _describe.cache_info().maxsize

    assert limit is not None
    assert limit <= 10_000


def test_the_answer_is_the_callers_own() -> None:
    """It goes into an event, and the next event must not see what became of it."""
    first = device_info(CHROME)
    assert first is not None
    first["type"] = "toaster"

    assert device_info(CHROME) == info("desktop", "Windows", "Chrome", "124.0")


def paris(ip: str) -> dict[str, str] | None:
    return dict(PARIS)


def nowhere(ip: str) -> dict[str, str] | None:
    return None


def test_a_hit_gets_device_and_place_and_stays_itself() -> None:
    hit = HIT | {"userAgent": CHROME, "ipAddress": "192.0.2.1"}
    before = dict(hit)

    enriched = enrich(hit, locate=paris)

    assert hit == before
    assert enriched == hit | {
        "deviceInfo": info("desktop", "Windows", "Chrome", "124.0"),
        "locationInfo": PARIS,
    }


@pytest.mark.parametrize("sent", [{}, {"type": "fridge"}, {"country": "XX"}])
def test_what_the_caller_sent_is_neither_overwritten_nor_completed(sent: dict[str, str]) -> None:
    hit = HIT | {"userAgent": CHROME, "ipAddress": "192.0.2.1"}

    with_device = enrich(hit | {"deviceInfo": sent}, locate=paris)
    with_place = enrich(hit | {"locationInfo": sent}, locate=paris)

    assert with_device == hit | {"deviceInfo": sent, "locationInfo": PARIS}
    assert with_place["locationInfo"] == sent
    assert with_place["deviceInfo"]["browser"] == "Chrome"


def test_nothing_known_adds_nothing() -> None:
    assert enrich(HIT, locate=paris) == HIT
    assert enrich(HIT | {"ipAddress": "10.0.0.1"}, locate=nowhere) == HIT | {
        "ipAddress": "10.0.0.1"
    }


fields = st.dictionaries(
    st.sampled_from(["userAgent", "ipAddress", "deviceInfo", "locationInfo", "customData"]),
    st.sampled_from([CHROME, "Mozilla/5.0", "YahooMailProxy", "8.8.8.8", "{}"]),
)


@given(fields)
def test_every_field_that_was_there_is_there_unchanged(data: dict[str, Any]) -> None:
    enriched = enrich(data, locate=paris)

    assert {name: enriched[name] for name in data} == data
    assert set(enriched) - set(data) <= {"deviceInfo", "locationInfo"}


def test_importing_the_module_does_not_load_the_parser() -> None:
    """The command line and the Python client import the pipeline and parse no user agent."""
    script = (
        "import sys, ray_tracking.pipeline.enrich; "
        "print([name for name in sys.modules if name.startswith('ua_parser')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
