"""What a process says of itself, and how much of it."""

from __future__ import annotations

import structlog


def configure(level: str) -> None:
    """
    Say what is of this level or above, and nothing else, from now on.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
