"""Takes every event of an email campaign, stores each exactly once, and shows it live."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_tracking.client import AsyncTrackingClient, TrackingClient
    from ray_tracking.errors import NotInitialized, TrackingError, Unreachable
    from ray_tracking.events import EventType
    from ray_tracking.pipeline.modes import Mode as ProcessingMode
    from ray_tracking.processor import TrackingEventProcessor

__version__ = "0.1.0"
__all__ = [
    "AsyncTrackingClient",
    "EventType",
    "NotInitialized",
    "ProcessingMode",
    "TrackingClient",
    "TrackingError",
    "TrackingEventProcessor",
    "Unreachable",
]

#: Where each name is; it is imported when somebody asks for it.
_WHERE = {
    "AsyncTrackingClient": "client",
    "EventType": "events",
    "NotInitialized": "errors",
    "ProcessingMode": "pipeline.modes",
    "TrackingClient": "client",
    "TrackingError": "errors",
    "TrackingEventProcessor": "processor",
    "Unreachable": "errors",
}
_NAMED = {"ProcessingMode": "Mode"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), _NAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
