"""What the supervisor refuses before it starts anything."""

from __future__ import annotations

import pytest

from ray_tracking.actors.supervisor import single_node_only
from ray_tracking.settings import Settings

URLS = {"database_url": "postgresql://u:p@db/x", "redis_url": "redis://cache"}
KEY = {"email_encryption_key": "k" * 32}


@pytest.mark.parametrize(
    ("args", "missing"),
    [
        ({}, "DATABASE_URL, REDIS_URL, EMAIL_ENCRYPTION_KEY: must be set on a cluster"),
        (URLS, "EMAIL_ENCRYPTION_KEY: must be set on a cluster of several nodes; this one has 2"),
        (KEY | {"redis_host": "cache"}, "DATABASE_URL: must be set"),
        (URLS | KEY, None),
    ],
)
def test_what_stands_on_one_node_cannot_serve_several(
    args: dict[str, str], missing: str | None
) -> None:
    settings = Settings.load(args, env={})

    assert single_node_only(settings, 1) is None
    said = single_node_only(settings, 2)
    assert said == missing or (said is not None and missing is not None and missing in said)
