"""What an error of Postgres means: nothing is taken for the data's fault that is not."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from ray_tracking.stores.failures import Failure, StoreRefused, StoreUnavailable, understood


def refused(error: Any) -> Failure:
    """Why, as understood."""
    meant = understood(error, connected=True)
    assert isinstance(meant, StoreRefused)
    return meant.failure


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InvalidTextRepresentationError,
        asyncpg.CharacterNotInRepertoireError,
        asyncpg.BadCopyFileFormatError,
        asyncpg.CheckViolationError,
        asyncpg.UniqueViolationError,
        asyncpg.NotNullViolationError,
        asyncpg.ProgramLimitExceededError,
    ],
)
def test_malformed_and_forbidden_data_may_be_at_fault(error: Any) -> None:
    assert refused(error("no")) is Failure.DATA


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DeadlockDetectedError,
        asyncpg.SerializationError,
        asyncpg.DiskFullError,
        asyncpg.OutOfMemoryError,
        asyncpg.LockNotAvailableError,
        asyncpg.PostgresIOError,
    ],
)
def test_what_passes_is_nobodys_fault(error: Any) -> None:
    assert refused(error("no")) is Failure.TRANSIENT


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UndefinedTableError,
        asyncpg.UndefinedColumnError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.InternalServerError,
        asyncpg.ReadOnlySQLTransactionError,
    ],
)
def test_what_somebody_must_mend_is_not_the_datas_fault(error: Any) -> None:
    assert refused(error("no")) is Failure.OTHER


@pytest.mark.parametrize(
    "error",
    [
        OSError("gone"),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("terminating"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.IdleInTransactionSessionTimeoutError("terminating"),
    ],
)
def test_a_lost_session_leaves_it_unclear(error: Exception) -> None:
    assert isinstance(understood(error, connected=False), StoreUnavailable)


def test_a_malformed_row_is_a_violation_of_the_protocol_that_leaves_the_session_alive() -> None:
    """A real one, as a pooler reports a lost server, ends it."""
    error = asyncpg.ProtocolViolationError("insufficient data left in message")

    assert refused(error) is Failure.DATA
    assert isinstance(understood(error, connected=False), StoreUnavailable)


def test_an_error_that_is_not_postgres_is_left_alone() -> None:
    """A fault of ours ends the writer: its successor starts clean."""
    assert understood(KeyError("ours"), connected=True) is None


def test_a_reason_does_not_hold_the_values_of_the_row() -> None:
    """They are in the detail, and a letter's reason is shown and logged."""
    error = asyncpg.CheckViolationError("violates check constraint")
    error.detail = "Failing row contains (secret)."

    meant = understood(error, connected=True)

    assert "violates check constraint" in str(meant)
    assert "23514" in str(meant)
    assert "secret" not in str(meant)
