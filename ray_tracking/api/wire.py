"""
What Python code hands over, as the bodies of the API have it.

Names of fields may be in camelCase or in snake_case. What is no field at all stays as it is,
so that the service refuses it under the name that was written. ``customData`` is the
caller's own, whatever its keys look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from ray_tracking.errors import InvalidEvent
from ray_tracking.events import MODELS, EventType
from ray_tracking.pipeline.validate import Rule, validate_item

#: In snake_case, of every field that an event may have.
_FIELDS = {
    re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name): name
    for model in MODELS.values()
    for name in model.__annotations__
    if not name.startswith("_")
}
_ENVELOPE = {"event_type": "eventType", "event_data": "eventData"}


def event(
    data: Mapping[str, Any],
    event_type: EventType | str,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """
    The body of ``POST /events``.

    Raises:
        InvalidEvent: It cannot be written as JSON, or says the same field twice.
    """
    return _encode(_item(data, event_type, metadata))


def batch_item(item: Any) -> bytes:
    """
    An item of a batch: ``{"data" or "event_data", "event_type", "metadata"?}``.

    Raises:
        InvalidEvent: As :func:`event`.
    """
    if not isinstance(item, Mapping):
        return _encode(item)
    renamed = _renamed(item, _ENVELOPE)
    for name in ("eventData", "data"):
        if name in renamed:
            renamed[name] = _data(renamed[name])
    return _encode(renamed)


def batch_of(encoded: Sequence[bytes]) -> bytes:
    """The body of ``POST /events/batch``, from items that are encoded already."""
    return b'{"events":[' + b",".join(encoded) + b"]}"


def item_type(item: Any) -> str | None:
    """The type that an item of a batch names, if it is one of ours."""
    given = item.get("event_type", item.get("eventType")) if isinstance(item, Mapping) else None
    return given if isinstance(given, str) and given in EventType.__members__ else None


def replay_options(
    event_types: Sequence[EventType | str] | None,
    batch_size: int,
    reprocess_analytics: bool,
    broadcast_updates: bool,
) -> dict[str, Any]:
    """The options of a replay."""
    options: dict[str, Any] = {
        "batchSize": batch_size,
        "reprocessAnalytics": reprocess_analytics,
        "broadcastUpdates": broadcast_updates,
    }
    return options if event_types is None else options | {"eventTypes": list(event_types)}


def replay(
    campaign_id: str, start: datetime | str, end: datetime | str, options: Mapping[str, Any]
) -> bytes:
    """
    The body of ``POST /replays``.

    Raises:
        InvalidEvent: It cannot be written as JSON.
    """
    span = {"fromTimestamp": start, "toTimestamp": end}
    return _encode({"campaignId": campaign_id, **span, "options": options})


def problems(
    data: Mapping[str, Any],
    event_type: EventType | str,
    metadata: Mapping[str, Any] | None,
    *,
    now_s: float,
    rules: Sequence[Rule],
) -> list[tuple[str, str]]:
    """Each ``(field, message)`` that is wrong with an event, as the service would say it."""
    try:
        item = orjson.loads(event(data, event_type, metadata))
        validate_item(item, now_s=now_s, rules=rules)
    except InvalidEvent as error:
        return error.details
    return []


def _item(data: Any, event_type: Any, metadata: Any) -> dict[str, Any]:
    item = {"eventType": event_type, "eventData": _data(data)}
    return item if metadata is None else item | {"metadata": metadata}


def _data(data: Any) -> Any:
    return _renamed(data, _FIELDS) if isinstance(data, Mapping) else data


def _renamed(given: Mapping[Any, Any], names: Mapping[str, str]) -> dict[Any, Any]:
    twice = list(_twice(given, names))
    if twice:
        raise InvalidEvent([(name, f"stands beside {names[name]}; send one") for name in twice])
    return {names.get(name, name): value for name, value in given.items()}


def _twice(given: Mapping[Any, Any], names: Mapping[str, str]) -> Iterator[str]:
    for name in given:
        other = names.get(name, name)
        if other != name and other in given:
            yield name


def _encode(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError as error:
        raise InvalidEvent([("eventData", f"is no JSON value: {error}")]) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not")
