"""
What an error of Postgres says about what was asked: may it be asked again, and is it the
data's fault?

Only data is ever set aside, and only after it was found to fail alone
(:mod:`ray_tracking.pipeline.bisect`). Whatever else is refused is asked again until it
succeeds: the log keeps what waits.
"""

from __future__ import annotations

from enum import Enum

import asyncpg

from ray_tracking.errors import TrackingError
from ray_tracking.stores.database import AWAY

#: The connection is gone or going: whatever was asked last may have happened or not.
UNCLEAR = (*AWAY, asyncpg.IdleInTransactionSessionTimeoutError)


class Failure(Enum):
    """Why a transaction was refused. It has changed nothing."""

    #: The data may be at fault: malformed, against a constraint, or larger than a limit.
    DATA = "data"
    #: Deadlocks, a full disk, a shutdown: it passes, or somebody is at it.
    TRANSIENT = "transient"
    #: A missing table, a missing permission: it will not pass before somebody mends it.
    OTHER = "other"


#: By the first two characters of the SQLSTATE.
_DATA = {"22", "23", "54"}
_TRANSIENT = {"08", "40", "53", "55", "57", "58"}


class StoreUnavailable(TrackingError):
    """Postgres did not answer, or it is not clear what it did."""

    code = "database_unavailable"


class StoreRefused(TrackingError):
    """
    Postgres has answered no, and what was asked has changed nothing.

    Args:
        failure: Why.
        sqlstate: Its own code for that.
        reason: Its own words, without the values of the row.
    """

    code = "database_refused"

    def __init__(self, failure: Failure, sqlstate: str, reason: str) -> None:
        super().__init__(failure, sqlstate, reason)
        self.failure = failure
        self.sqlstate = sqlstate
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.sqlstate})"


def understood(error: Exception, *, connected: bool) -> TrackingError | None:
    """
    What an error of asyncpg means, or None where it is none.

    Args:
        error: As it was raised.
        connected: Whether the connection has outlived it.
    """
    # A malformed binary row is a protocol violation, which asyncpg takes for a lost
    # connection. A real one loses it.
    malformed = isinstance(error, asyncpg.ProtocolViolationError) and connected
    if isinstance(error, UNCLEAR) and not malformed:
        return StoreUnavailable(f"{type(error).__name__}: {error}")
    if not isinstance(error, asyncpg.PostgresError):
        return None
    sqlstate = error.sqlstate or "XX000"
    if malformed or sqlstate[:2] in _DATA:
        failure = Failure.DATA
    else:
        failure = Failure.TRANSIENT if sqlstate[:2] in _TRANSIENT else Failure.OTHER
    return StoreRefused(failure, sqlstate, str(error.args[0] if error.args else error))
