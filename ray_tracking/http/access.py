"""
Who may do what: API keys with scopes.

With no keys the service is open, and listens on loopback only (the settings see to
that). Keys are compared by their hashes, all of them each time, so that the time taken
tells nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import blake2b

from ray_tracking.http.asgi import Headers, Refusal, Scope, header
from ray_tracking.settings import ApiKey
from ray_tracking.settings import Scope as KeyScope

_CHALLENGE: Headers = [(b"www-authenticate", b'Bearer realm="ray-tracking"')]


class Access:
    """
    Checks credentials.

    Args:
        keys: The keys that are known; none opens everything.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(_digest(key.key.get_secret_value()), key.scopes) for key in keys]

    def require(self, scope: Scope, needed: KeyScope) -> None:
        """
        Let a request pass, or not.

        Raises:
            Refusal: 401 without a known key, 403 with one that lacks the scope.
        """
        if not self._keys:
            return
        token = bearer(scope)
        if token is None:
            raise Refusal(401, "an API key is needed: send Authorization: Bearer KEY", _CHALLENGE)
        self.require_token(token, needed)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._keys

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


def bearer(scope: Scope) -> str | None:
    """The credential in the header of a request."""
    kind, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=32).digest()
