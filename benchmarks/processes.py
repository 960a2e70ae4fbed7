"""The processes of a service by kind: the memory that they hold, the time that they take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.service import Service

#: How each kind is told by the title of its process; Ray shows in it what an actor does.
_TITLES = {
    "ingress": ":tracking:Ingress",
    "shard": "ray::ShardActor",
    "writer": "ray::WriterActor",
    "broadcaster": "ray::BroadcasterActor",
    "supervisor": ":tracking:Supervisor",
    "guard": "ray_tracking.stores.embedded.guard",
    "run": "bin/ray-tracking run",
}
_PROGRAMS = {"postgres": "Postgres", "valkey-server": "Valkey"}
#: What is nothing else belongs to ``Ray``.
KINDS = (*_TITLES, "Valkey", "Postgres", "Ray")
#: Our own actors and replicas.
OURS = ("ingress", "shard", "writer", "broadcaster", "supervisor")


class Sample(NamedTuple):
    """Memory in MiB by kind, at a time of ``time.perf_counter``."""

    at_s: float
    mib: dict[str, float]


def find(service: Service, kind: str) -> list[psutil.Process]:
    """The processes of one kind."""
    return [process for process in _all(service) if _kind(process) == kind]


def ray_address(service: Service) -> str:
    """Where a driver finds the service's Ray."""
    for process in _all(service):
        with suppress(psutil.NoSuchProcess):
            for part in process.cmdline() if process.name() == "raylet" else ():
                if part.startswith("--gcs-address="):
                    return part.partition("=")[2]
    raise SystemExit("the service has no raylet")


def memory_mib(service: Service) -> dict[str, float]:
    """
    What is resident (PSS), added up for each kind.

    A page that several processes share, such as Postgres's buffers or a program's file,
    counts for each of them in part, so the sum over all kinds counts it once.
    """
    resident = dict.fromkeys(KINDS, 0)
    for process in _all(service):
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            resident[_kind(process)] += _resident_kib(process.pid)
    return {kind: resident[kind] / 1024 for kind in KINDS}


def cpu_s(service: Service) -> dict[str, float]:
    """
    Seconds of processor time so far, in user and system mode, added up for each kind.

    What a process took that has ended since counts for its parent.
    """
    spent = dict.fromkeys(KINDS, 0.0)
    for process in _all(service):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent[_kind(process)] += times.user + times.system
            spent[_kind(process)] += times.children_user + times.children_system
    return spent


@asynccontextmanager
async def watching(service: Service, every_s: float) -> AsyncIterator[list[Sample]]:
    """A list of samples, which grows until this is left."""
    samples: list[Sample] = []

    async def watch() -> None:
        while True:
            found = await asyncio.to_thread(memory_mib, service)
            samples.append(Sample(time.perf_counter(), found))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(watch())
    try:
        yield samples
    finally:
        task.cancel()


def _all(service: Service) -> Iterable[psutil.Process]:
    roots = [psutil.Process(service.pid)]
    # The guard may have left the tree, so that it outlives the application.
    for process in psutil.process_iter(["cmdline"]):
        if f"--data-dir={service.data_dir}" in (process.info["cmdline"] or ()):
            roots.append(process)
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            found |= {process.pid: process for process in [root, *root.children(recursive=True)]}
    return found.values()


def _kind(process: psutil.Process) -> str:
    try:
        title, program = " ".join(process.cmdline()), process.name()
    except psutil.NoSuchProcess:
        return "Ray"
    if program in _PROGRAMS:
        return _PROGRAMS[program]
    return next((kind for kind, part in _TITLES.items() if part in title), "Ray")


def _resident_kib(pid: int) -> int:
    """The proportional set size; 0 for a process that has just ended."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
