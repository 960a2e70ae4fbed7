"""
The people of a simulated campaign: what they read mail with, where they are, and what
they and the mail systems between us and them write.

Plain tables, and nothing here decides anything. Addresses are drawn from networks that
are really in use, because documentation ranges cannot be located; no packet is ever
sent to them.
"""

from __future__ import annotations

import ipaddress
from random import Random
from typing import NamedTuple

#: Networks of access providers: home and mobile connections of many countries.
_HOME_NETWORKS = (
    "73.162.0.0/16", "71.184.0.0/16", "99.56.0.0/16", "2601:640::/32",  # United States
    "70.48.0.0/16",  # Canada
    "79.217.0.0/16", "84.160.0.0/16", "188.96.0.0/16", "2003:e7::/32",  # Germany
    "86.150.0.0/16", "90.200.0.0/16",  # United Kingdom
    "90.45.0.0/16", "82.64.0.0/16",  # France
    "83.45.0.0/16",  # Spain
    "79.30.0.0/16",  # Italy
    "86.80.0.0/16",  # Netherlands
    "83.20.0.0/16",  # Poland
    "177.32.0.0/16",  # Brazil
    "49.36.0.0/16",  # India
    "120.16.0.0/16",  # Australia
    "114.160.0.0/16",  # Japan
)  # fmt: skip
_GOOGLE_PROXY = "66.249.84.0/24"
_APPLE_PRIVACY = "104.28.0.0/16"
_YAHOO_PROXY = "87.248.114.0/24"

_IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko)"
)
_SAFARI_IPHONE = f"{_IPHONE} Version/18.5 Mobile/15E148 Safari/604.1"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
_CHROME_WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/138.0.0.0 Safari/537.36"
)
_CHROME_ANDROID = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/138.0.0.0 Mobile Safari/537.36"
)
_SAMSUNG = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36"
)
_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_EDGE = f"{_CHROME_WINDOWS} Edg/138.0.0.0"
_OUTLOOK = (
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; .NET4.0C; "
    ".NET4.0E; Microsoft Outlook 16.0.18827; ms-office; MSOffice 16)"
)
_GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
_YAHOO = "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"
_THUNDERBIRD = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.0"


class _Kind(NamedTuple):
    weight: int
    #: What fetches the pixel, and from where when that is not the reader's own network.
    mail_agent: str
    mail_network: str | None
    #: What follows a link.
    browser: str


_KINDS = (
    _Kind(30, "Mozilla/5.0", _APPLE_PRIVACY, _SAFARI_IPHONE),
    _Kind(6, f"{_IPHONE} Mobile/15E148", None, _SAFARI_IPHONE),
    _Kind(4, _MAC, None, f"{_MAC} Version/18.5 Safari/605.1.15"),
    _Kind(14, _GMAIL, _GOOGLE_PROXY, _CHROME_WINDOWS),
    _Kind(14, _GMAIL, _GOOGLE_PROXY, _CHROME_ANDROID),
    _Kind(5, _GMAIL, _GOOGLE_PROXY, _SAMSUNG),
    _Kind(12, _OUTLOOK, None, _EDGE),
    _Kind(6, _EDGE, None, _EDGE),
    _Kind(4, _YAHOO, _YAHOO_PROXY, _CHROME_WINDOWS),
    _Kind(3, _THUNDERBIRD, None, _FIREFOX),
    _Kind(2, _SAMSUNG, None, _SAMSUNG),
)
_WEIGHTS = [kind.weight for kind in _KINDS]
_NETWORKS = {
    text: ipaddress.ip_network(text)
    for text in (*_HOME_NETWORKS, _GOOGLE_PROXY, _APPLE_PRIVACY, _YAHOO_PROXY)
}


class Reader(NamedTuple):
    """Somebody with a mail program and a browser, each seen from an address."""

    mail_agent: str
    mail_address: str
    browser: str
    address: str


def reader(rng: Random) -> Reader:
    """Somebody, as often of each kind as mailing lists see them."""
    (kind,) = rng.choices(_KINDS, _WEIGHTS)
    home = _address(rng, rng.choice(_HOME_NETWORKS))
    mail_address = _address(rng, kind.mail_network) if kind.mail_network else home
    return Reader(kind.mail_agent, mail_address, kind.browser, home)


def _address(rng: Random, network: str) -> str:
    block = _NETWORKS[network]
    return str(block[rng.randrange(1, block.num_addresses - 1)])


THEMES = (
    "spring-launch", "onboarding", "winback", "newsletter", "webinar", "renewal",
    "product-tour", "survey", "black-friday", "founders-note",
)  # fmt: skip
SUBJECTS = (
    "A quick question about your roadmap", "Your invitation", "Frühlings-Angebot für Sie",
    "Three things that we learned", "Une idée pour votre équipe", "来週のウェビナーのご案内",
    "Still interested?", "Last call 🚀", "¿Hablamos el jueves?",
)  # fmt: skip
#: ``{}`` is the campaign.
LINKS = (
    "https://www.example.com/{}?utm_source=mail&utm_medium=email&utm_campaign={}",
    "https://www.example.com/pricing?ref={}",
    "https://blog.example.org/2026/how-we-built-it#comments",
    "https://cal.example.net/team/intro/30min?month=2026-11&name=J%C3%B6rg",
    "https://www.example.com/unsubscribe?c={}",
)
BOUNCES: dict[str, tuple[tuple[str, str], ...]] = {
    "hard": (
        ("550", "5.1.1 The email account that you tried to reach does not exist"),
        ("550", "5.4.1 Recipient address rejected: Access denied"),
        ("553", "5.1.2 We weren't able to find the recipient domain"),
    ),
    "soft": (
        ("452", "4.2.2 The email account that you tried to reach is over quota"),
        ("421", "4.7.0 Try again later, closing connection"),
        ("451", "4.7.1 Greylisting in action, please come back later"),
    ),
    "complaint": (("", "Feedback-Type: abuse"),),
    "suppression": (("", "The address is on the suppression list"),),
}
AUTO_REPLIES = ("Automatic reply: {}", "Out of office: {}", "Abwesenheitsnotiz: {}")
PAUSE_REASONS = ("daily limit reached", "bounce rate over 5 %", "paused by its owner")
HEALTH = (
    (6, "healthy", 88.0, 100.0, None),
    (2, "warming", 70.0, 90.0, "ramping up the daily volume"),
    (1, "throttled", 45.0, 70.0, "the provider defers our mail"),
)
