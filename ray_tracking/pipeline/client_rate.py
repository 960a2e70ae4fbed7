"""How many requests each client may make: a bucket for each address, which fills as time passes."""

from __future__ import annotations

from collections import OrderedDict

#: Addresses that are remembered; who has been away for longest is forgotten first.
MAX_CLIENTS = 10_000


class ClientRates:
    """
    Budgets of requests.

    Args:
        per_s: How many a client may make in a second, and at once.
        max_clients: How many are remembered.
    """

    def __init__(self, per_s: float, max_clients: int = MAX_CLIENTS) -> None:
        self._per_s = per_s
        self._max_clients = max_clients
        #: What is left, and as of when in Unix milliseconds, by address.
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def charge(self, client: str, now_ms: int) -> float:
        """
        Take one request of a client's budget, or say in how many seconds there will be one.

        Returns:
            0 when it was taken; otherwise nothing was.
        """
        most = max(1.0, self._per_s)
        left, at_ms = self._left.get(client, (most, now_ms))
        left = min(most, left + (now_ms - at_ms) / 1000 * self._per_s)
        if left < 1:
            return (1 - left) / self._per_s
        self._left[client] = (left - 1, now_ms)
        self._left.move_to_end(client)
        if len(self._left) > self._max_clients:
            self._left.popitem(last=False)
        return 0.0
