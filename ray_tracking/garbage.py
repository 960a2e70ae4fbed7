"""How a process that works on events collects garbage."""

from __future__ import annotations

import gc

#: New objects until the youngest are looked at. The events of one moment are thousands of
#: them, and hardly any is part of a cycle.
_YOUNG = 20_000


def settle() -> None:
    """
    Leave alone what is there when everything has started: modules and settings stay for good,
    and to look at each of them again and again costs milliseconds at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
