"""
Sessions of the dashboard: a cookie in the place of an API key.

A browser must not keep a key where scripts can read it, and must not put it into a URL.
So a key is exchanged once for a cookie that opens reading and nothing else, and ends by
itself. The cookie is the time at which it ends, signed with the key: every replica can
check it, none has to remember it, and it ends at once when the key is taken away.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from ray_tracking.clock import Clock
from ray_tracking.http.asgi import Scope, header

COOKIE = "ray_tracking_session"
#: A working day; then the key is asked for again.
LASTS_S = 12 * 3600
_PERSON = b"dashboard"


class Sessions:
    """
    Issues and checks session cookies.

    Args:
        secrets: One for each key that may read: 32 bytes that only its holder and we know.
        base_url: Where the service is, as browsers see it.
        clock: Unix time in milliseconds.
    """

    def __init__(self, secrets: Sequence[bytes], base_url: str, clock: Clock) -> None:
        self._secrets = secrets
        self._origin = urlsplit(base_url)
        self._clock = clock

    def issue(self, secret: bytes) -> str:
        """The ``Set-Cookie`` header for the holder of this secret."""
        ends_s = self._clock() // 1000 + LASTS_S
        return self._cookie(f"{ends_s}.{_sign(secret, ends_s)}", LASTS_S)

    def end(self) -> str:
        """The ``Set-Cookie`` header that takes a session away."""
        return self._cookie("", 0)

    def admits(self, scope: Scope) -> bool:
        """
        Does a request, or the handshake of a socket, carry a session that counts?

        One from a page of another origin does not: a browser sends cookies along with
        whatever another port of the same host opens here.
        """
        return self._from_here(scope) and self._is_good(_read_cookie(scope))

    def _is_good(self, value: str) -> bool:
        ends, _, signature = value.partition(".")
        if not (ends.isascii() and ends.isdigit() and len(ends) < 12):
            return False
        ends_s = int(ends)
        good = False
        for secret in self._secrets:
            good |= hmac.compare_digest(_sign(secret, ends_s).encode(), signature.encode())
        return good and ends_s > self._clock() // 1000

    def _from_here(self, scope: Scope) -> bool:
        origin = header(scope, b"origin")
        if origin is None:
            return True
        return urlsplit(origin).netloc in (header(scope, b"host"), self._origin.netloc)

    def _cookie(self, value: str, lasts_s: int) -> str:
        secure = "; Secure" if self._origin.scheme == "https" else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"


def _sign(secret: bytes, ends_s: int) -> str:
    return blake2b(str(ends_s).encode(), key=secret, person=_PERSON, digest_size=32).hexdigest()


def _read_cookie(scope: Scope) -> str:
    try:
        morsel = SimpleCookie(header(scope, b"cookie") or "").get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
