"""
Is this an event? Yields a sanitised :class:`~ray_tracking.events.Event`, or says what
is wrong, field by field.

Nothing is dropped silently: an unknown field is refused with a pointer to
``customData``. Control characters are refused in identifiers and URLs and stripped
from free text. Values are data: never executed, never interpolated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaValidator

from ray_tracking.errors import InvalidEvent, MalformedRequest
from ray_tracking.events import (
    HIGH_PRIORITY_TYPES,
    MAX_AHEAD_S,
    MAX_CUSTOM_BYTES,
    MAX_CUSTOM_LEVELS,
    MODELS,
    TYPES_BY_NAME,
    Event,
    EventType,
    Identifier,
    Metadata,
)
from ray_tracking.pipeline.links import check_link
from ray_tracking.pipeline.rows import encode_json, packed_ip

#: A user's rule: given the type and the sanitised data, what is wrong, or None.
Rule = Callable[[EventType, Mapping[str, Any]], str | tuple[str, str] | None]

Details = list[tuple[str, str]]

_VALIDATORS: dict[EventType, SchemaValidator] = {}
for _type, _model in MODELS.items():
    _validator = TypeAdapter(_model).validator
    assert isinstance(_validator, SchemaValidator)
    _VALIDATORS[_type] = _validator
_METADATA = TypeAdapter(Metadata)
_IDENTIFIER = TypeAdapter(Identifier)

#: Unicode's category Cc, and lone surrogates, which no UTF-8 text can hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PRINTABLE = bytes(range(0x20, 0x7F))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_YEAR_1_US = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
#: ``fromisoformat`` takes any character between date and time, a time that ends in its
#: punctuation, and space or NUL before an offset.
_TIMESTAMP = re.compile(r"[0-9W-]++[Tt ][0-9:.,]++(?<![:.,])(?:Z|[+-][0-9:.]++)")
_NOT_ISO = "is not ISO 8601, such as 2026-11-23T19:00:00Z"

_IDENTIFIERS = frozenset({"campaignId", "leadId", "emailId", "accountId", "eventId", "linkId"})
_TEXTS = frozenset(
    {
        "userAgent", "messageId", "inReplyTo", "subject", "bounceReason", "smtpCode",
        "newStatus", "oldStatus", "status", "reason",
    }
)  # fmt: skip
_OBJECTS = frozenset({"deviceInfo", "locationInfo"})
_ENVELOPE = frozenset({"eventType", "eventData", "data", "metadata"})
_TYPE_NAMES = ", ".join(EventType)


def validate_item(item: Any, *, now_s: float, rules: Sequence[Rule] = ()) -> Event:
    """
    Validate one item as it came in: ``{"eventType", "eventData" or "data", "metadata"?}``.

    Args:
        item: A JSON value, or the :class:`MalformedRequest` that stands for one.
        now_s: Unix time, against which a timestamp is "ahead".
        rules: The user's own rules, asked last.

    Raises:
        InvalidEvent: With every ``(field, message)`` that is wrong.
    """
    if not isinstance(item, dict):
        if isinstance(item, MalformedRequest):
            raise InvalidEvent([("", str(item))])
        raise InvalidEvent([("", "an event must be an object with eventType and eventData")])
    event_type = item_type(item)
    if event_type is None:
        given = item.get("eventType")
        problem = f"{given!r:.80} is not one of" if "eventType" in item else "is required, one of"
        raise InvalidEvent([("eventType", f"{problem} {_TYPE_NAMES}")])
    if not _ENVELOPE.issuperset(item):
        raise InvalidEvent(
            [
                (
                    _strip_control(str(key)),
                    "is not a field of an event; put your own data into customData",
                )
                for key in item
                if key not in _ENVELOPE
            ]
        )
    if "eventData" in item and "data" in item:
        raise InvalidEvent([("data", "stands beside eventData; send one of the two")])
    data = item.get("eventData", item.get("data"))
    high = _is_high(item.get("metadata"), event_type)
    return validate_data(event_type, data, high=high, now_s=now_s, rules=rules)


def item_type(item: Any) -> EventType | None:
    """The type that an item names, if it is one of ours."""
    name = item.get("eventType") if isinstance(item, dict) else None
    return TYPES_BY_NAME.get(name) if isinstance(name, str) else None


def validate_data(
    event_type: EventType,
    data: Any,
    *,
    high: bool,
    now_s: float,
    rules: Sequence[Rule] = (),
) -> Event:
    """
    Validate ``eventData`` of a known type.

    Raises:
        InvalidEvent: With every ``(field, message)`` that is wrong.
    """
    if not isinstance(data, dict):
        what = "is required" if data is None else "must be an object"
        raise InvalidEvent([("eventData", what)])
    try:
        clean: dict[str, Any] = _VALIDATORS[event_type].validate_python(data)
    except ValidationError as error:
        raise InvalidEvent(explain(error, event_type)) from None
    except UnicodeEncodeError:
        raise InvalidEvent([("eventData", "a string holds a lone surrogate")]) from None
    problems: Details = []
    occurred_us = _sanitise(clean, now_s, problems)
    if not problems:
        for rule in rules:
            _ask(rule, event_type, clean, problems)
    if problems:
        raise InvalidEvent(problems)
    return Event(event_type, clean, occurred_us, high)


def _is_high(metadata: Any, event_type: EventType) -> bool:
    if metadata is None:
        return event_type in HIGH_PRIORITY_TYPES
    try:
        priority = _METADATA.validate_python(metadata).get("priority")
    except ValidationError as error:
        raise InvalidEvent(
            [(f"metadata.{field}".rstrip("."), text) for field, text in explain(error, "metadata")]
        ) from None
    return priority == "high" or event_type in HIGH_PRIORITY_TYPES


def _sanitise(data: dict[str, Any], now_s: float, problems: Details) -> int:
    """Clean the values in place, append what is wrong, and return the time in microseconds."""
    if not _is_plain(data):
        _clean_texts(data, problems)
    if data.get("newStatus") == "":
        problems.append(("newStatus", "must not be empty"))
    if (link := data.get("linkUrl")) is not None and (reason := check_link(link)):
        problems.append(("linkUrl", reason))
    if (address := data.get("ipAddress")) is not None:
        try:
            packed_ip(address)
        except ValueError:
            problems.append(("ipAddress", "is not an IPv4 or IPv6 address"))
    if (custom := data.get("customData")) is not None:
        data["customData"] = _clean_custom(custom, problems)
    return _parse_timestamp(data, now_s, problems)


def _is_plain(data: dict[str, Any]) -> bool:
    """The cheap question: are all values texts that can be printed, as most often?"""
    try:
        text = "".join(data.values())
    except TypeError:
        return False
    if text.isascii():  # in half the time
        return not text.encode().translate(None, _PRINTABLE)
    return text.isprintable()


def _clean_texts(data: dict[str, Any], problems: Details) -> None:
    """Leave out what is absent, and control characters; say where they may not be."""
    absent = []
    for name, value in data.items():
        if value is None:
            absent.append(name)
        # isprintable() is the cheap question; only a "no" needs the exact one.
        elif type(value) is str and not value.isprintable():
            if name in _TEXTS:
                data[name] = _strip_control(value)
            elif name in _IDENTIFIERS and _CONTROL.search(value):
                problems.append((name, "must not contain control characters"))
        elif name in _OBJECTS:
            data[name] = {k: _strip_control(v) for k, v in value.items() if v is not None}
    for name in absent:
        del data[name]


def read_identifier(text: Any) -> str | None:
    """What an event would make of a name of a campaign, a lead or so; None if it may not be one."""
    try:
        name: str = _IDENTIFIER.validate_python(text)
    except (ValidationError, UnicodeEncodeError):
        return None
    return name if _CONTROL.search(name) is None else None


def read_moment(text: str, field: str, problems: Details) -> datetime | None:
    """
    The moment that a ``timestamp`` of the same text would be, though it may be ahead.

    Args:
        text: Without space around it.
        field: Where it stands.
        problems: Gets an entry if it is none.
    """
    wrong: Details = []
    occurred_us = _parse_timestamp({"timestamp": text}, math.inf, wrong)
    problems.extend((field, reason) for _, reason in wrong)
    if wrong:
        return None
    try:
        return _EPOCH + occurred_us * _MICROSECOND
    except OverflowError:
        problems.append((field, "is after the year 9999 in UTC"))
        return None


def _strip_control(text: str) -> str:
    return _CONTROL.sub("", text).strip() if not text.isprintable() else text


def _parse_timestamp(data: dict[str, Any], now_s: float, problems: Details) -> int:
    text = data["timestamp"]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if text.endswith("z"):  # as RFC 3339 allows
            return _parse_timestamp({"timestamp": text[:-1] + "Z"}, now_s, problems)
        problems.append(("timestamp", _NOT_ISO))
        return 0
    if moment.tzinfo is None:
        problems.append(("timestamp", "needs a date, a time, and an offset or Z"))
        return 0
    if not _TIMESTAMP.fullmatch(text):
        problems.append(("timestamp", _NOT_ISO))
        return 0
    occurred_us = (moment - _EPOCH) // _MICROSECOND
    if occurred_us < _YEAR_1_US:
        problems.append(("timestamp", "is before the year 1 in UTC"))
    if occurred_us > (now_s + MAX_AHEAD_S) * 1e6:
        problems.append(("timestamp", f"is more than {MAX_AHEAD_S // 60} minutes ahead"))
    return occurred_us


def _clean_custom(custom: dict[str, Any], problems: Details) -> Any:
    """The same object with clean strings, or unchanged with a problem noted."""
    try:
        clean = _clean_json(custom, 1)
    except InvalidEvent as error:
        problems.extend(error.details)
        return custom
    try:
        size = len(encode_json(clean))
    except ValueError:  # Python writes no integer of more than 4300 digits
        problems.append(("customData", "a number is too large"))
        return custom
    if size > MAX_CUSTOM_BYTES:
        problems.append(("customData", f"has {size} bytes; the limit is {MAX_CUSTOM_BYTES}"))
    return clean


def _clean_json(value: Any, level: int) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else _CONTROL.sub("", value)
    if isinstance(value, dict):
        _check_level(level)
        clean = {}
        for key, item in value.items():
            if not isinstance(key, str) or (not key.isprintable() and _CONTROL.search(key)):
                raise InvalidEvent([("customData", "a key holds a control character")])
            clean[key] = _clean_json(item, level + 1)
        return clean
    if isinstance(value, list):
        _check_level(level)
        return [_clean_json(item, level + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent([("customData", "a number is too large")])
    if value is None or isinstance(value, bool | int | float):
        return value
    raise InvalidEvent([("customData", f"{type(value).__name__} is not a JSON value")])


def _check_level(level: int) -> None:
    if level > MAX_CUSTOM_LEVELS:
        raise InvalidEvent([("customData", f"is nested deeper than {MAX_CUSTOM_LEVELS} levels")])


def _ask(rule: Rule, event_type: EventType, data: dict[str, Any], problems: Details) -> None:
    """A rule that fails refuses the event: letting it through would be the silent choice."""
    name = getattr(rule, "__name__", "rule")
    try:
        answer = rule(event_type, data)
    except ValueError as error:
        problems.append(("eventData", str(error) or f"refused by {name}"))
    except Exception as error:
        problems.append(("eventData", f"the rule {name} failed: {type(error).__name__}"))
    else:
        match answer:
            case None:
                pass
            case str():
                problems.append(("eventData", answer))
            case (str() as field, str() as message):
                problems.append((field, message))
            case _:
                what = type(answer).__name__
                problems.append(("eventData", f"the rule {name} failed: it answered {what}"))


def explain(error: ValidationError, what: str) -> Details:
    """Pydantic's errors in our words, one a field; ``what`` is the thing with the fields."""
    details: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False):
        loc = item["loc"]
        # A union adds the name of each branch to the path.
        field = "smtpCode" if loc[:1] == ("smtpCode",) else ".".join(map(str, loc))
        details.setdefault(field, _message(item, field, what))
    return list(details.items())


def _message(item: ErrorDetails, field: str, what: str) -> str:
    if field == "smtpCode" and item["type"] != "extra_forbidden":
        return 'must be a code such as 550 or "5.1.1"'
    context = item.get("ctx", {})
    match item["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return f"is not a field of {what}; put your own data into customData"
        case "string_type":
            return "must be a string"
        case "string_unicode":
            return "holds a lone surrogate"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"is longer than {context['max_length']} characters"
        case "literal_error":
            return f"must be {context['expected']}"
        case "bool_type":
            return "must be true or false"
        case "dict_type":
            return "must be an object"
        case _:
            return item["msg"][:1].lower() + item["msg"][1:]
