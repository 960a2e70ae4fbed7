"""
What do the user agent and the address of a hit say about device and place?

Only pixel and click hits are enriched. What a caller sent is never overwritten, nor
completed: a ``deviceInfo`` of one field stays at one field. What is not known is left
out, and a guess that would be false more often than not is not made:

* A mail provider's image proxy (Gmail, Yahoo, Outlook.com, Seznam) is ``proxy``, with
  no system and no location: both would be the provider's, not the reader's.
* A bare ``Mozilla/5.0`` is Apple's Mail Privacy Protection and says nothing.
* Apple Mail's version is left out: the number in its user agent is WebKit's
  (uap-core#528).
* ``os`` carries no version: Chrome, Safari and Firefox have frozen theirs.

A user agent is hostile input. Only the first 512 characters are looked at, and no
text makes this module raise. Answers for the last 10,000 user agents are kept, at
most 35 MB of them, if somebody sends 10,000 of the worst.

The rules of ``ua-parser`` load at first use, 0.15 s and 30 MB (Rust resolver), so a
service calls :func:`load_rules` when it starts. After that, a user agent costs 20 us
at first (a new kind of one up to 500) and 1 us from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ua_parser import PartialResult, Resolver

MAX_AGENT_CHARS: Final = 512
MAX_AGENTS_KEPT: Final = 10_000

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_APPLE_PRIVACY = "Mozilla/5.0"

#: What a user agent contains, and the name of the proxy that sends it.
_PROXIES: Final = (
    ("GoogleImageProxy", "GoogleImageProxy"),
    ("ggpht.com", "GoogleImageProxy"),
    # Gmail fetching ahead of the reader, in the disguise of an Edge that never was.
    ("Edge/12.246 Mozilla/5.0", "GoogleImageProxy"),
    ("YahooMailProxy", "YahooMailProxy"),
    ("OutlookImageProxy", "OutlookImageProxy"),
    ("SeznamEmailProxy", "SeznamEmailProxy"),
)

# A television says Android or Linux, and is neither a tablet nor a desktop.
_TELEVISION = re.compile(r"TV|\bAFT[A-Z]|CrKey|PlayStation|Xbox|Nintendo")
_APPLE_MAIL_ON_IOS = re.compile(r"\(KHTML, like Gecko\) Mobile/\w+$")
_PHONE_SYSTEMS = frozenset(
    {"iOS", "Windows Phone", "Windows Mobile", "BlackBerry OS", "KaiOS", "Firefox OS"}
)
_DESKTOP_SYSTEMS = frozenset(
    {"Windows", "Mac OS X", "Mac OS", "Linux", "Ubuntu", "Debian", "Fedora", "Red Hat", "CentOS"}
    | {"SUSE", "Gentoo", "Arch Linux", "Mint", "FreeBSD", "OpenBSD", "NetBSD", "Chrome OS"}
)


def enrich(
    event_data: Mapping[str, Any], *, locate: Callable[[str], dict[str, str] | None]
) -> dict[str, Any]:
    """
    A copy of validated ``eventData`` with ``deviceInfo`` and ``locationInfo`` where known.

    Args:
        event_data: With the contract's camelCase names; never changed.
        locate: The place of an address, such as
            :meth:`ray_tracking.stores.geo.GeoTable.locate`. Must not raise.
    """
    enriched = dict(event_data)
    device = device_info(event_data.get("userAgent"))
    if device is not None and "deviceInfo" not in event_data:
        enriched["deviceInfo"] = device
    at_proxy = device is not None and device.get("type") == "proxy"
    address = event_data.get("ipAddress")
    if isinstance(address, str) and "locationInfo" not in event_data and not at_proxy:
        location = locate(address)
        if location is not None:
            enriched["locationInfo"] = location
    return enriched


def device_info(user_agent: object) -> dict[str, str] | None:
    """``{type, os, browser, version}`` as far as known, or None if nothing is."""
    if not isinstance(user_agent, str):
        return None
    known = _describe(_UNPRINTABLE.sub("", user_agent[:MAX_AGENT_CHARS]).strip())
    # A copy: the kept answer serves other events too.
    return dict(known) if known else None


def load_rules() -> None:
    """Load the rules now, so that the first hit need not wait for them."""
    _resolver()


@lru_cache(maxsize=MAX_AGENTS_KEPT)
def _describe(agent: str) -> Mapping[str, str]:
    if not agent or agent == _APPLE_PRIVACY:
        return {}
    for mark, proxy in _PROXIES:
        if mark in agent:
            return {"type": "proxy", "browser": proxy}
    from ua_parser import Domain

    found = _resolver()(agent, Domain.ALL)
    browser, version = _browser(agent, found)
    parts = {
        "type": _type(agent, found),
        "os": found.os.family if found.os else None,
        "browser": browser,
        "version": version,
    }
    return {name: value for name, value in parts.items() if value}


def _browser(agent: str, found: PartialResult) -> tuple[str | None, str | None]:
    if found.user_agent is None:
        return None, None
    family = found.user_agent.family
    if family == "Apple Mail" or _APPLE_MAIL_ON_IOS.search(agent):
        return "Apple Mail", None
    major, minor = found.user_agent.major, found.user_agent.minor
    return family, f"{major}.{minor}" if major and minor else major


def _type(agent: str, found: PartialResult) -> str | None:
    system = found.os.family if found.os else ""
    device = found.device
    device_words = f"{device.family} {device.brand} {device.model}" if device else ""
    if "Spider" in device_words:
        return "bot"
    if _TELEVISION.search(agent):
        return None
    if "iPad" in device_words or "Kindle" in device_words:
        return "tablet"
    if "Mobi" in agent or "Smartphone" in device_words or system in _PHONE_SYSTEMS:
        return "mobile"
    if system == "Android":
        # Browsers on phones say "Mobile" and those on tablets do not. Apps follow no rule.
        return "tablet" if agent.startswith("Mozilla/") else None
    return "desktop" if system in _DESKTOP_SYSTEMS else None


@lru_cache(maxsize=1)
def _resolver() -> Resolver:
    # ua-parser's own default keeps a second cache; ours is enough.
    from ua_parser import load_lazy_builtins
    from ua_parser.regex import Resolver as RustResolver

    return RustResolver(load_lazy_builtins())
