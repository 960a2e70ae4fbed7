"""One connected client, as the hub sees it."""

from __future__ import annotations

from collections.abc import Callable

from ray_tracking.clock import Clock
from ray_tracking.pipeline.outbox import Message, Outbox

#: Close codes of the contract.
BAD_CREDENTIAL, SLOW_CONSUMER, GOING_AWAY = 4401, 4408, 1012
#: Campaigns that one connection may watch.
MAX_SUBSCRIPTIONS = 100


class Subscriber:
    """
    Gets messages without ever being waited for.

    Args:
        write: Sends a message at once; False if the connection takes none now.
        give_up: Ends the connection, with a code and why.
        clock: Unix milliseconds, never going back.
    """

    def __init__(
        self,
        write: Callable[[Message], bool],
        give_up: Callable[[int, str], None],
        clock: Clock,
    ) -> None:
        self.outbox = Outbox()
        self._write = write
        self._give_up = give_up
        self._clock = clock
        self._gone = False

    @property
    def is_gone(self) -> bool:
        """Whether the connection was ended."""
        return self._gone

    def send(self, message: Message) -> None:
        """Send it, now or when the connection takes it, or what makes it needless."""
        if self._gone or (not self.outbox and self._write(message)):
            return
        self.outbox.put(message, self._clock())
        self.look()

    def flush(self) -> None:
        """The connection takes messages again."""
        while self.outbox and not self._gone:
            if not self._write(self.outbox.first):
                return
            self.outbox.take(self._clock())

    def take(self) -> Message:
        """For a connection that is written to by a task of its own: the next message."""
        return self.outbox.take(self._clock())

    def look(self) -> None:
        """Give up the connection if it has taken nothing for too long."""
        if not self._gone and self.outbox.is_hopeless(self._clock()):
            self.outbox.clear()
            self.close(SLOW_CONSUMER, "slow consumer")

    def close(self, code: int, reason: str) -> None:
        """End the connection, behind what was sent to it."""
        if not self._gone:
            self._gone = True
            self._give_up(code, reason)
