"""
What a process says of itself, and how much of it: a JSON object a line, on stdout.

``info`` has a line for what an operator must know and none for an event; ``debug`` says why
each decision was made, a line for a batch of events or for one that was refused. No line has
data of a person: neither values of events, nor tokens, nor addresses.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

#: What this process is; set once, when it begins.
_part: str | None = None


class _Named(structlog.PrintLogger):
    """Prints, and knows what it is called."""

    def __init__(self, name: str) -> None:
        super().__init__(sys.stdout)
        self.name = name


def configure(level: str, part: str | None = None) -> None:
    """
    Say what is of this level or above, and nothing else, from now on.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        part: What this process is, such as ``shard-0``; as before, if not given.
    """
    global _part
    _part = part or _part
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Named(names[0] if names else "ray_tracking"),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            # Without the values of variables, which may be somebody's.
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _whose,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
    )


def _whose(logger: Any, method: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The same names first in every line: when, how bad, who, what."""
    first = {name: said.pop(name) for name in ("timestamp", "level")}
    first |= {"logger": getattr(logger, "name", None), "part": _part}
    first["event"] = said.pop("event")
    return {**first, **said}


def _json(said: Any, **options: Any) -> str:
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
