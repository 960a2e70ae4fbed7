"""Which URLs are links: absolute, http or https, with a host, and nothing unprintable."""

from __future__ import annotations

import re

from ray_tracking.events import MAX_URL_CHARS

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HTTP = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)


def check_link(url: str) -> str | None:
    """Say why this is not a link that somebody can have clicked, or None."""
    if len(url) > MAX_URL_CHARS:
        return f"is longer than {MAX_URL_CHARS} characters"
    if _CONTROL.search(url):
        return "must not contain control characters"
    if not _HTTP.match(url):
        return "must be an absolute http or https URL"
    return None
