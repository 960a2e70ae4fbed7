"""
Who may do what: API keys with scopes, and the dashboard's cookie in their place.

With no keys the service is open, and listens on loopback only (the settings see to
that). Keys are compared by their hashes, all of them each time, so that the time taken
tells nothing.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from hashlib import blake2b

from ray_tracking.clock import Clock, steady_clock
from ray_tracking.http.asgi import INSIDE, Headers, Refusal, Scope, header
from ray_tracking.http.client_address import TrustedProxies, of_request
from ray_tracking.http.sessions import Sessions
from ray_tracking.pipeline.client_rate import ClientRates
from ray_tracking.settings import ApiKey
from ray_tracking.settings import Scope as KeyScope

_CHALLENGE: Headers = [(b"www-authenticate", b'Bearer realm="ray-tracking"')]


class Access:
    """
    Checks credentials.

    Args:
        keys: The keys that are known; none opens everything.
        base_url: Where the service is, as browsers see it.
        clock: Unix time in milliseconds.
        proxies: Whose word is taken for who a client is.
        requests_per_s: How many each client may make; None: any number.
    """

    def __init__(
        self,
        keys: Sequence[ApiKey],
        base_url: str = "",
        clock: Clock | None = None,
        *,
        proxies: TrustedProxies | None = None,
        requests_per_s: float | None = None,
    ) -> None:
        self._clock = clock or steady_clock()
        self._proxies = proxies or TrustedProxies()
        self._rates = ClientRates(requests_per_s) if requests_per_s else None
        self._keys = [(_digest(key.key.get_secret_value()), key.scopes) for key in keys]
        readers = [digest for digest, scopes in self._keys if "read" in scopes]
        self.sessions = Sessions(readers, base_url, self._clock)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._keys

    def require(self, scope: Scope, needed: KeyScope) -> None:
        """
        Let a request, or the handshake of a socket, pass, or not.

        Raises:
            Refusal: 401 without a known key, 403 with one that lacks the scope; 429 before
                anything else for a client that asks too often.
        """
        if INSIDE in scope.get("extensions", ()):
            return
        if self._rates is not None:
            self._charge(scope)
        if not self._keys or (needed == "read" and self.admits_session(scope)):
            return
        token = bearer(scope)
        if token is None:
            raise Refusal(401, "an API key is needed: send Authorization: Bearer KEY", _CHALLENGE)
        self.require_token(token, needed)

    def _charge(self, scope: Scope) -> None:
        assert self._rates is not None
        client = of_request(scope, self._proxies)
        if client is None:
            return
        if wait_s := self._rates.charge(client, self._clock()):
            retry_after: Headers = [(b"retry-after", b"%d" % math.ceil(wait_s))]
            raise Refusal(429, f"too many requests from {client}", retry_after)

    def admits_session(self, scope: Scope) -> bool:
        """Whether a session of the dashboard stands in for a key; one that is sent goes first."""
        return header(scope, b"authorization") is None and self.sessions.admits(scope)

    def require_token(self, token: str, needed: KeyScope) -> None:
        """
        The same for a key that came another way than in a header.

        Raises:
            Refusal: 401 if it is not known, 403 if it lacks the scope.
        """
        if not self._keys:
            return
        given = _digest(token)
        granted = None
        for digest, scopes in self._keys:
            if hmac.compare_digest(digest, given):
                granted = scopes
        if granted is None:
            raise Refusal(401, "the API key is not known", _CHALLENGE)
        if needed not in granted:
            raise Refusal(403, f"the API key does not have the scope {needed!r}", [])

    def open_session(self, key: str) -> str:
        """
        Exchange a key for a session of the dashboard: the ``Set-Cookie`` header.

        Raises:
            Refusal: As for :meth:`require_token`; reading is what the key must open.
        """
        self.require_token(key, "read")
        return self.sessions.issue(_digest(key))


def bearer(scope: Scope) -> str | None:
    """The credential in the header of a request."""
    kind, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=32).digest()
