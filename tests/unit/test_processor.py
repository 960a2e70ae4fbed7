"""What the processor does without Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ray_tracking import EventType, NotInitialized, ProcessingMode, TrackingEventProcessor

OPEN = {"campaign_id": "c", "leadId": "l", "email_id": "m", "timestamp": "2026-11-01T09:00:00Z"}


def no_internal(event_type: EventType, data: object) -> str | None:
    return "as told" if event_type == EventType.EMAIL_SENT else None


async def test_nothing_is_sent_before_it_is_initialized_or_after() -> None:
    processor = TrackingEventProcessor()
    for _ in range(2):
        with pytest.raises(NotInitialized, match=r"initialize\(\)"):
            await processor.process_event(OPEN, EventType.EMAIL_OPEN)
        with pytest.raises(NotInitialized):
            await processor.get_processing_stats()
        await processor.shutdown()


def test_an_event_is_validated_as_the_service_would_and_without_ray() -> None:
    """In a process that has never imported Ray."""
    script = f"""
import asyncio, sys
from ray_tracking import EventType, TrackingEventProcessor
processor = TrackingEventProcessor()
fine = asyncio.run(processor.validate_event({OPEN!r}, EventType.EMAIL_OPEN))
wrong = asyncio.run(processor.validate_event({OPEN!r}, EventType.LINK_CLICK))
assert fine.valid and not fine.errors, fine
assert not wrong.valid and wrong.errors[0].field == "linkUrl", wrong
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("data", "event_type", "field"),
    [
        ({**OPEN, "lead_name": "Ada"}, "EMAIL_OPEN", "lead_name"),
        ({**OPEN, "campaignId": "other"}, "EMAIL_OPEN", "campaign_id"),
        ({**OPEN, "lead_id": "other"}, "EMAIL_OPEN", "lead_id"),
        (OPEN, "EMAIL_READ", "eventType"),
        (None, "EMAIL_OPEN", "eventData"),
        ({**OPEN, "custom_data": {"a": object()}}, "EMAIL_OPEN", "eventData"),
    ],
)
async def test_what_is_wrong_goes_by_the_name_that_was_written(
    data: dict[str, object], event_type: str, field: str
) -> None:
    check = await TrackingEventProcessor().validate_event(data, event_type)
    assert not check.valid
    assert [error.field for error in check.errors] == [field]


async def test_rules_that_are_named_are_asked() -> None:
    rules = [f"{__name__}:no_internal"]
    sys.modules.setdefault(__name__, sys.modules[no_internal.__module__])
    processor = TrackingEventProcessor(validation_rules=rules)
    assert (await processor.validate_event(OPEN, EventType.EMAIL_OPEN)).valid
    check = await processor.validate_event(OPEN, EventType.EMAIL_SENT)
    assert [error.message for error in check.errors] == ["as told"]


def test_modes_have_the_names_of_the_wire() -> None:
    assert ProcessingMode("BATCH") is ProcessingMode.BATCH
    assert list(ProcessingMode) == ["REALTIME", "BATCH", "HYBRID"]


def test_an_event_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="event_broadcasted"):
        TrackingEventProcessor().on("nonsense", print)
