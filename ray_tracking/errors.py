"""
Every error that ray_tracking raises on purpose:

* TrackingError
    * SettingsError           a setting is unknown or impossible; the start stops
    * StartError              something outside is not as it must be; the start stops
    * RequestError            the sender can mend it; the same request never succeeds
        * MalformedRequest        400
        * PayloadTooLarge         413
        * UnsupportedMedia        415
        * InvalidEvent            422
    * Unavailable             we can mend it; the sender should come again
        * LogUnavailable          503
        * Unreachable             nobody answers; for users of the clients and the processor
    * NotInitialized          the processor has not begun, or has ended
    * AccessRefused           the service does not take the key
    * Fenced                  another owner has taken over; this one must stop
"""

from __future__ import annotations

from typing import ClassVar


class TrackingError(Exception):
    """
    Base class of every error that ray_tracking raises on purpose.

    Errors travel between actors. Unpickling calls the class with ``args``, so a
    subclass takes its arguments by position and hands all of them to
    ``super().__init__``.
    """

    #: Stable, low-cardinality name: the metric label.
    code: ClassVar[str] = "internal"
    #: Status that the HTTP layer answers with.
    status: ClassVar[int] = 500


class SettingsError(TrackingError):
    """A setting is unknown or impossible. The text is one line that names it."""

    code = "bad_setting"


class StartError(TrackingError):
    """Something outside of us is not as it must be. One line says what and how to mend it."""

    code = "cannot_start"


class RequestError(TrackingError):
    """The request itself is at fault: the same bytes will never be accepted."""

    code = "bad_request"
    status = 400


class MalformedRequest(RequestError):
    """The body cannot be read as events."""

    code = "malformed_request"


class PayloadTooLarge(RequestError):
    """The body is larger than we read."""

    code = "payload_too_large"
    status = 413


class UnsupportedMedia(RequestError):
    """The body is of a type or encoding that we do not read."""

    code = "unsupported_media_type"
    status = 415


class InvalidEvent(RequestError):
    """
    The event breaks a rule of its type.

    Args:
        details: One ``(field, message)`` for each thing that is wrong.
    """

    code = "invalid_event"
    status = 422

    def __init__(self, details: list[tuple[str, str]]) -> None:
        super().__init__(details)
        self.details = details

    def __str__(self) -> str:
        return "; ".join(f"{field}: {message}" for field, message in self.details)


class Unavailable(TrackingError):
    """The request was fine, but it cannot be served now."""

    code = "unavailable"
    status = 503


class LogUnavailable(Unavailable):
    """The event log did not take the events, or it is not clear whether it did."""

    code = "log_unavailable"


class Unreachable(Unavailable):
    """No service answers where one was looked for, or it has not answered in time."""

    code = "unreachable"


class NotInitialized(TrackingError):
    """The processor was not initialized, or was shut down. Nothing was sent."""

    code = "not_initialized"


class AccessRefused(TrackingError):
    """The service does not take the key, or the lack of one."""

    code = "access_refused"


class Fenced(TrackingError):
    """Another owner has taken over this partition. Whoever sees this stops for good."""

    code = "fenced"
