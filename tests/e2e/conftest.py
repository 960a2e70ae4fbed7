"""One running service for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service
from tests.support.collector import Collector


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Gets the shared service's spans."""
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Service]:
    """Shared: each test brings campaigns of its own."""
    directory = tmp_path_factory.mktemp("service")
    running = Service(
        directory, TRACKING_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100"
    )
    running.start()
    try:
        yield running
    finally:
        if running.stop() != 0:
            raise AssertionError(running.output.read_text()[-3000:])


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    """One that the test may stop and kill."""
    made = Service(tmp_path)
    try:
        yield made
    finally:
        made.kill_everything()
