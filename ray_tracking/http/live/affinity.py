"""
Which replica a Socket.IO session belongs to.

Replicas of a node share one port, and each connection of a client may reach another of them;
but a session that is polled, or is on its way from polling to WebSocket, lives in one. So its
id says which: the port on loopback where its replica listens as well, signed, so that nobody
can have us connect to anything else. A replica that is asked for a session of another hands
the connection on (:mod:`ray_tracking.http.handover`).
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import blake2b

_RANDOM_BYTES = 15
_MAC_BYTES = 9
_REQUEST = re.compile(rb"(?:GET|POST) /socket\.io/?\?[^ ]*?\bsid=([0-9a-f]{1,80})[& ]")


class Affinity:
    """
    Makes ids of sessions, and reads whose they are.

    Args:
        secret: Shared by the replicas.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret, person=b"socket.io sid").digest()
        #: Where this replica listens for the others; None where it does not.
        self.port: int | None = None

    def new_id(self) -> str:
        """Of a session of this replica."""
        body = secrets.token_bytes(_RANDOM_BYTES) + (self.port or 0).to_bytes(2, "big")
        return (body + self._mac(body)).hex()

    def other_port(self, data: bytes) -> int | None:
        """
        The port of the replica to which a request belongs.

        Args:
            data: The beginning of the request, as it came in.

        Returns:
            None if this one may answer: it is no request of a session, or of none of ours.
        """
        found = _REQUEST.match(data)
        if found is None or self.port is None:
            return None
        port = self._owner(found[1].decode())
        return port if port not in (0, self.port) else None

    def _owner(self, session_id: str) -> int:
        try:
            raw = bytes.fromhex(session_id)
        except ValueError:
            return 0
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) != _RANDOM_BYTES + 2 or not hmac.compare_digest(mac, self._mac(body)):
            return 0
        return int.from_bytes(body[-2:], "big")

    def _mac(self, body: bytes) -> bytes:
        return blake2b(body, key=self._key[:32], digest_size=_MAC_BYTES).digest()
