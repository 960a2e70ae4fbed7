"""Shard: what it makes of several errors at once."""

from __future__ import annotations

from ray_tracking.actors.shard import gravest
from ray_tracking.errors import Fenced, LogUnavailable


def test_a_shard_that_has_lost_a_partition_ends_whatever_else_went_wrong() -> None:
    away, lost = LogUnavailable("no answer"), Fenced("there is a later owner")
    assert gravest([away, lost, away]) is lost
    assert gravest([away, LogUnavailable("neither")]) is away
