"""
The processes below this one, as ``/proc`` shows them, and who outlives whom.

Ray leaves orphans when its parts are killed. A process that called
:func:`adopt_orphans` becomes the parent of all that are orphaned below it, so none of
them is out of its sight.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """A process as it was when it was looked at."""

    pid: int
    parent_pid: int
    #: The kernel's name for it: at most 15 characters of the program's.
    name: str
    #: One letter, as in ``ps``.
    state: str
    #: Together with the pid this is nobody else, ever.
    started_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it is still there. One that has ended and is not waited for is not."""
        now = _look_at(self.pid)
        return now is not None and now.started_ticks == self.started_ticks and now.state not in "ZX"

    @property
    def arguments(self) -> list[str]:
        """Its command line; empty when it has ended."""
        try:
            raw = (_PROC / str(self.pid) / "cmdline").read_bytes()
        except OSError:
            return []
        return raw.decode(errors="replace").split("\0")


def below(pid: int, *, spare: Callable[[Process], bool] = lambda process: False) -> list[Process]:
    """All descendants, those that have ended but not been waited for among them.

    Args:
        pid: Whose.
        spare: Says of which neither it nor what is below it counts.
    """
    children: defaultdict[int, list[Process]] = defaultdict(list)
    for process in _all():
        children[process.parent_pid].append(process)
    found: list[Process] = []
    parents = [pid]
    while parents:
        next_ones = [child for child in children[parents.pop()] if not spare(child)]
        found += next_ones
        parents += [child.pid for child in next_ones]
    return found


def send(number: int, processes: Iterable[Process]) -> None:
    """Send a signal to each that is still there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def wait_for_ended() -> dict[int, int]:
    """Wait for every child that has ended, adopted ones too; their exit codes as in subprocess."""
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return codes


def adopt_orphans() -> None:
    """From now on this process, not init, is the parent of what is orphaned below it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Let the kernel send this process a signal when its parent has ended, however it did."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _all() -> Iterator[Process]:
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (process := _look_at(int(entry))):
            yield process


def _look_at(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    # pid (name) state ppid …: the name may hold anything, brackets and spaces too.
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    return Process(pid, int(fields[1]), head.partition("(")[2], fields[0], int(fields[19]))
