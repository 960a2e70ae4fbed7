"""The wall clock of every Python process of a service, as wrong as a file says."""

from __future__ import annotations

import mmap
import os
import struct
import time

_time, _time_ns = time.time, time.time_ns
with open(os.environ["WRONG_CLOCK_FILE"], "rb") as _file:  # noqa: TID251 - early, and light
    _ahead_s = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _ahead() -> int:
    seconds: int = struct.unpack("<q", _ahead_s[:])[0]
    return seconds


time.time = lambda: _time() + _ahead()
time.time_ns = lambda: _time_ns() + _ahead() * 1_000_000_000
