"""Events, submissions and strategies that the tests of the pipeline share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

from ray_tracking.events import Event, EventType
from ray_tracking.pipeline.append import Entry, EntryId, Header, Kind, decode_entry, encode_entry
from ray_tracking.pipeline.route import IDENTITY_SHIFT, Identity, Submission, event_ids
from ray_tracking.pipeline.rows import iso_utc
from ray_tracking.pipeline.validate import validate_item

NOW = datetime(2026, 11, 23, 19, 20, tzinfo=UTC)
NOW_S = NOW.timestamp()
NOW_MS = int(NOW_S * 1000)
AT = "2026-11-23T19:00:00Z"

_EMAIL = {"campaignId": "c1", "leadId": "l1", "emailId": "e1", "timestamp": AT}

#: The least that each type may have: the table of the contract.
REQUIRED: dict[EventType, dict[str, Any]] = {
    EventType.EMAIL_SENT: _EMAIL,
    EventType.EMAIL_DELIVERED: _EMAIL,
    EventType.EMAIL_OPEN: _EMAIL,
    EventType.LINK_CLICK: _EMAIL | {"linkUrl": "https://example.com/a?b=c"},
    EventType.EMAIL_REPLY: _EMAIL,
    EventType.EMAIL_BOUNCE: _EMAIL | {"bounceType": "hard"},
    EventType.CAMPAIGN_STATUS_CHANGE: {"campaignId": "c1", "timestamp": AT, "newStatus": "paused"},
    EventType.ACCOUNT_HEALTH_UPDATE: {"accountId": "a1", "timestamp": AT},
}

#: A good value for each optional field: of all types, and of one.
COMMON_OPTIONAL: dict[str, Any] = {
    "eventId": "order-7",
    "accountId": "a7",
    "ipAddress": "203.0.113.9",
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
    "deviceInfo": {"type": "desktop", "os": "Linux", "browser": "Firefox", "version": "125.0"},
    "locationInfo": {"country": "FR", "region": "IDF", "city": "Paris", "timezone": "Europe/Paris"},
    "customData": {"plan": "gold", "scores": [1, 2.5, None, True]},
}
OWN_OPTIONAL: dict[EventType, dict[str, Any]] = {
    EventType.EMAIL_SENT: {},
    EventType.EMAIL_DELIVERED: {},
    EventType.EMAIL_OPEN: {},
    EventType.LINK_CLICK: {"linkId": "footer"},
    EventType.EMAIL_REPLY: {
        "messageId": "<1@example.com>",
        "inReplyTo": "<0@example.com>",
        "subject": "Re: hello",
        "autoReply": True,
    },
    EventType.EMAIL_BOUNCE: {"bounceReason": "mailbox unavailable", "smtpCode": 550},
    EventType.CAMPAIGN_STATUS_CHANGE: {"oldStatus": "running", "reason": "holiday"},
    EventType.ACCOUNT_HEALTH_UPDATE: {
        "campaignId": "c1",
        "healthScore": 87.5,
        "status": "warming",
        "reason": "new domain",
    },
}


def item(event_type: str, **fields: Any) -> dict[str, Any]:
    """An item as it comes in, with the least it may have and ``fields``."""
    return {"eventType": event_type, "eventData": REQUIRED[EventType(event_type)] | fields}


def valid(event_type: str, **fields: Any) -> Event:
    """The event of such an item."""
    return validate_item(item(event_type, **fields), now_s=NOW_S)


def minted(n: int, at_ms: int = NOW_MS) -> bytes:
    """The n-th event id of a millisecond."""
    return event_ids(at_ms, n.to_bytes(16, "big"))[0]


def submission(
    n: int,
    *,
    at_ms: int = NOW_MS,
    digest: int | None = None,
    identity: Identity = Identity.EXACT,
    occurred_us: int = 0,
    key: str = "c1",
    lane: int = 1,
    flags: int = 0,
    row: bytes = b"",
) -> Submission:
    """A submission that need not have been an event; without a digest it is unlike any other."""
    return Submission(
        3,
        key,
        lane,
        flags | identity << IDENTITY_SHIFT,
        minted(n, at_ms),
        (n if digest is None else digest).to_bytes(8, "big"),
        occurred_us,
        row or b"row-%d" % n,
    )


def entry(epoch: int, seq: int, kind: Kind = Kind.BATCH, previous: str = "") -> Entry:
    """An entry as a reader gets it."""
    raw_id = str(EntryId(epoch, seq)).encode()
    return decode_entry(raw_id, encode_entry(Header(kind=kind, previous=previous)))


def accepted(event: Event) -> dict[str, Any]:
    """``eventData`` as it is read again: the moment and the address in their normal form."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.occurred_us)
    data = event.data | {"timestamp": iso_utc(moment)}
    if "ipAddress" in data:
        data["ipAddress"] = str(ip_address(data["ipAddress"]))
    return data


_printable = st.characters(exclude_categories=("Cc", "Cs"))


def _trimmed(text: str) -> bool:
    return text == text.strip()


identifiers = st.text(_printable, min_size=1, max_size=128).filter(_trimmed)
texts = st.text(_printable, max_size=40).filter(_trimmed)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_printable, max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(_printable, max_size=10), inner, max_size=4)
    ),
    max_leaves=6,
)
_moments = st.integers(-62_135_000_000_000_000, 1_795_000_000_000_000).map(
    lambda us: (datetime(1970, 1, 1) + timedelta(microseconds=us)).isoformat()  # noqa: DTZ001
)
timestamps = st.builds(str.__add__, _moments, st.sampled_from(["Z", "+00:00", "+05:30", "-11:00"]))
_CLICK_HOSTS = st.sampled_from(["example.com", "EXAMPLE.com:8080", "[::1]", "münchen.de"])


def _some_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    nullable = {name: st.none() | values for name, values in fields.items()}
    return st.fixed_dictionaries({}, optional=nullable)


_optional: dict[str, st.SearchStrategy[Any]] = {
    "eventId": identifiers,
    "accountId": identifiers,
    "ipAddress": st.ip_addresses().map(str),
    "userAgent": texts,
    "deviceInfo": _some_of(dict.fromkeys(("type", "os", "browser", "version"), texts)),
    "locationInfo": _some_of(dict.fromkeys(("country", "region", "city", "timezone"), texts)),
    "customData": st.dictionaries(st.text(_printable, max_size=10), json_values, max_size=3),
    "linkId": identifiers,
    "autoReply": st.booleans(),
    "smtpCode": st.integers(100, 999) | texts,
    "campaignId": identifiers,
    "healthScore": st.floats(0, 100) | st.integers(0, 100),
}
_required: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": timestamps,
    "linkUrl": st.builds(
        "{}://{}/{}".format, st.sampled_from(["http", "HTTPS"]), _CLICK_HOSTS, texts
    ),
    "bounceType": st.sampled_from(["hard", "soft", "complaint", "suppression"]),
    "newStatus": texts.filter(bool),
}


@st.composite
def valid_items(draw: st.DrawFn) -> dict[str, Any]:
    """Any valid event of any type."""
    event_type = draw(st.sampled_from(EventType))
    needed = {name: _required.get(name, identifiers) for name in REQUIRED[event_type]}
    names = (COMMON_OPTIONAL | OWN_OPTIONAL[event_type]).keys() - needed.keys()
    wanted = _some_of({name: _optional.get(name, texts) for name in sorted(names)})
    data = draw(st.fixed_dictionaries(needed)) | draw(wanted)
    return {"eventType": str(event_type), "eventData": data}
