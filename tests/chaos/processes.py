"""The processes of a service, by what they are: found in ``/proc``, without asking anybody."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One line of ``/proc``."""

    pid: int
    parent: int
    #: The name of its program.
    program: str
    command: str

    def signal(self, number: signal.Signals) -> bool:
        """Whether it was there to get it."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _titled(title: str) -> Callable[[Process], bool]:
    return lambda process: process.command.startswith(title)


def _running(program: str) -> Callable[[Process], bool]:
    return lambda process: process.program == program


#: How each kind is recognised among the processes of a service.
KINDS: dict[str, Callable[[Process], bool]] = {
    "replica": _titled("ray::ServeReplica:tracking:Ingress"),
    "supervisor": _titled("ray::ServeReplica:tracking:Supervisor"),
    "shard": _titled("ray::ShardActor"),
    "broadcaster": _titled("ray::BroadcasterActor"),
    "writer": _titled("ray::WriterActor"),
    "controller": _titled("ray::ServeController"),
    "raylet": _running("raylet"),
    "gcs": _running("gcs_server"),
    # The keeper has the same command, and is the elder.
    "run": lambda process: process.command.rstrip().endswith("ray-tracking run"),
    "valkey": _running("valkey-server"),
    # Its other processes have titles: "postgres: checkpointer".
    "postgres": lambda process: (
        process.program == "postgres" and not process.command.startswith("postgres:")
    ),
    "guard": lambda process: "ray_tracking.stores.embedded.guard" in process.command,
}


def all_of(root: Path, *more: int) -> list[Process]:
    """Every process that names a directory in its command, ``more``, and all below those."""
    everybody = {process.pid: process for process in _everybody()}
    below: dict[int, list[Process]] = {}
    for process in everybody.values():
        below.setdefault(process.parent, []).append(process)
    ours: dict[int, Process] = {}
    mark = str(root)
    waiting = [process for process in everybody.values() if mark in process.command]
    waiting += [everybody[pid] for pid in more if pid in everybody]
    while waiting:
        process = waiting.pop()
        if process.pid not in ours and process.pid != os.getpid():
            ours[process.pid] = process
            waiting += below.get(process.pid, ())
    return list(ours.values())


def _everybody() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
            command = Path(entry.path, "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        program = stat[stat.index("(") + 1 : stat.rindex(")")]
        state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
        if state not in "ZX":
            text = command.replace(b"\0", b" ").decode(errors="replace")
            yield Process(int(entry.name), int(parent), program, text)
