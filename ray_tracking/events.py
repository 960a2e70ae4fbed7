"""
The nouns: what an event is, which types there are, and what each type may carry.

The TypedDicts below are the public models. They validate what arrives
(:mod:`ray_tracking.pipeline.validate`) and they are what ``/openapi.json`` shows.
Text is trimmed here; control characters are dealt with by the validator, because
the rule differs between identifiers (refused) and free text (stripped).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, NotRequired

import msgspec
from pydantic import ConfigDict, Field, StrictBool, StringConstraints
from typing_extensions import TypedDict


class EventType(StrEnum):
    """What happened. The order is the code of the type in the log and never changes."""

    EMAIL_SENT = "EMAIL_SENT"
    EMAIL_DELIVERED = "EMAIL_DELIVERED"
    EMAIL_OPEN = "EMAIL_OPEN"
    LINK_CLICK = "LINK_CLICK"
    EMAIL_REPLY = "EMAIL_REPLY"
    EMAIL_BOUNCE = "EMAIL_BOUNCE"
    CAMPAIGN_STATUS_CHANGE = "CAMPAIGN_STATUS_CHANGE"
    ACCOUNT_HEALTH_UPDATE = "ACCOUNT_HEALTH_UPDATE"


#: Code of each type in the log's headers.
TYPE_CODES = {event_type: code for code, event_type in enumerate(EventType)}
TYPES_BY_CODE = tuple(EventType)
TYPES_BY_NAME = {event_type.value: event_type for event_type in EventType}

#: Always realtime: they overtake the backlog.
HIGH_PRIORITY_TYPES = frozenset(
    {EventType.EMAIL_BOUNCE, EventType.CAMPAIGN_STATUS_CHANGE, EventType.ACCOUNT_HEALTH_UPDATE}
)


class Lane(StrEnum):
    """Each partition has one stream a lane. The order is the order in which they are read."""

    HIGH = "high"
    NORMAL = "normal"
    #: Pixel and click hits over their campaign's rate, written as the rate allows.
    PARKED = "parked"


LANES = tuple(Lane)


class Agent(StrEnum):
    """Who fetched a pixel or a link, where that was judged."""

    HUMAN = "human"
    MACHINE = "machine"


MAX_ID_CHARS = 128
MAX_URL_CHARS = 8192
MAX_CUSTOM_BYTES = 16 * 1024
MAX_CUSTOM_LEVELS = 8
MAX_BATCH_EVENTS = 10_000
MAX_AHEAD_S = 300

Identifier = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_ID_CHARS)
]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2048)]
Url = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_URL_CHARS)
]
Timestamp = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64),
    Field(
        description="ISO 8601 with an offset or Z, at most 5 minutes ahead.",
        json_schema_extra={"format": "date-time"},
    ),
]
BounceType = Literal["hard", "soft", "complaint", "suppression"]

#: Pydantic's way to configure a TypedDict, whose class may have nothing but fields for mypy.
_CLOSED = ConfigDict(extra="forbid")


class DeviceInfo(TypedDict):
    __pydantic_config__ = _CLOSED  # type: ignore[misc]
    type: NotRequired[Text | None]
    os: NotRequired[Text | None]
    browser: NotRequired[Text | None]
    version: NotRequired[Text | None]


class LocationInfo(TypedDict):
    __pydantic_config__ = _CLOSED  # type: ignore[misc]
    country: NotRequired[Text | None]
    region: NotRequired[Text | None]
    city: NotRequired[Text | None]
    timezone: NotRequired[Text | None]


class CommonData(TypedDict):
    """What every event may carry."""

    __pydantic_config__ = _CLOSED  # type: ignore[misc]
    timestamp: Timestamp
    eventId: NotRequired[Identifier | None]
    accountId: NotRequired[Identifier | None]
    ipAddress: NotRequired[Text | None]
    userAgent: NotRequired[Text | None]
    deviceInfo: NotRequired[DeviceInfo | None]
    locationInfo: NotRequired[LocationInfo | None]
    customData: NotRequired[dict[str, Any] | None]


class EmailData(CommonData):
    """EMAIL_SENT, EMAIL_DELIVERED, EMAIL_OPEN."""

    campaignId: Identifier
    leadId: Identifier
    emailId: Identifier


class ClickData(EmailData):
    """LINK_CLICK."""

    linkUrl: Url
    linkId: NotRequired[Identifier | None]


class ReplyData(EmailData):
    """EMAIL_REPLY."""

    messageId: NotRequired[Text | None]
    inReplyTo: NotRequired[Text | None]
    subject: NotRequired[Text | None]
    autoReply: NotRequired[StrictBool | None]


class BounceData(EmailData):
    """EMAIL_BOUNCE."""

    bounceType: BounceType
    bounceReason: NotRequired[Text | None]
    smtpCode: NotRequired[Annotated[int, Field(strict=True, ge=100, le=999)] | Text | None]


class StatusData(CommonData):
    """CAMPAIGN_STATUS_CHANGE."""

    campaignId: Identifier
    newStatus: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2048)
    ]
    oldStatus: NotRequired[Text | None]
    reason: NotRequired[Text | None]


class HealthData(CommonData):
    """ACCOUNT_HEALTH_UPDATE."""

    # Required here; mypy lets no TypedDict require what its base does not.
    accountId: Identifier  # type: ignore[misc]
    campaignId: NotRequired[Identifier | None]
    healthScore: NotRequired[
        Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] | None
    ]
    status: NotRequired[Text | None]
    reason: NotRequired[Text | None]


#: The model of each type's ``eventData``.
MODELS: dict[EventType, type] = {
    EventType.EMAIL_SENT: EmailData,
    EventType.EMAIL_DELIVERED: EmailData,
    EventType.EMAIL_OPEN: EmailData,
    EventType.LINK_CLICK: ClickData,
    EventType.EMAIL_REPLY: ReplyData,
    EventType.EMAIL_BOUNCE: BounceData,
    EventType.CAMPAIGN_STATUS_CHANGE: StatusData,
    EventType.ACCOUNT_HEALTH_UPDATE: HealthData,
}


class Metadata(TypedDict):
    __pydantic_config__ = _CLOSED  # type: ignore[misc]
    priority: NotRequired[Literal["high", "normal"] | None]


class Event(msgspec.Struct, frozen=True):
    """
    A valid event on its way to the log.

    ``data`` is the sanitised ``eventData`` with absent fields left out;
    ``occurred_us`` is its timestamp in microseconds since 1970 (UTC).
    """

    type: EventType
    data: dict[str, Any]
    occurred_us: int
    high: bool
    agent: Agent | None = None

    @property
    def routing_key(self) -> str:
        """What partition, rate and identity hang on (see :func:`account_key`)."""
        campaign_id = self.data.get("campaignId")
        return campaign_id if campaign_id is not None else account_key(self.data["accountId"])


#: An account's key cannot be a campaign's: identifiers have no control characters.
ACCOUNT_MARK = "\x1f"


def account_key(account_id: str) -> str:
    """The routing key of an event that belongs to no campaign."""
    return ACCOUNT_MARK + account_id
