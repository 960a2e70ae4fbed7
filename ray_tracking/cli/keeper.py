"""
The keeper: the parent of ``ray-tracking run``, which starts the whole again when it is lost.

The child is the Ray driver, and everything of Ray is below it. When the child, the GCS or
the raylet has gone, what is left below is of no use to anybody: the keeper kills it, removes
Ray's session directory, and forks another child. The embedded servers are spared, and
held for the next child; see :mod:`ray_tracking.stores.embedded.guard`. So is the data
directory, by a lock; see :mod:`ray_tracking.cli.in_use`.

The keeper imports neither Ray nor the settings: it must not be what runs out of memory.
If it is killed all the same, the kernel asks the child to stop cleanly.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from ray_tracking.cli.in_use import lock
from ray_tracking.cli.processes import (
    Process,
    adopt_orphans,
    below,
    end_with_parent,
    send,
    wait_for_ended,
)
from ray_tracking.stores.embedded.paths import control_socket

#: Without any of them nothing of Ray goes on.
_VITAL = ("gcs_server", "raylet")
_GUARD = "ray_tracking.stores.embedded.guard"

_LOOK_EVERY_S = 0.5
#: A start may recover a large database first; one that takes longer hangs.
_READY_WITHIN_S = 180.0
#: Longer than Serve gives its replicas.
_STOP_WITHIN_S = 40.0
#: For a child that stops and has lost its Ray, which ends without it or never.
_STOP_ALONE_WITHIN_S = 5.0
#: A guard gives its servers 8 s.
_GUARD_WITHIN_S = 10.0
_KILLED_WITHIN_S = 10.0

_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0

_STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_SIGNALS = {*_STOP_SIGNALS, signal.SIGCHLD}


class Report:
    """
    What the child tells its keeper.

    Args:
        keeper: Who listens.
        held: The file that the keeper has locked in a former life, if any.
    """

    def __init__(self, keeper: socket.socket, held: os.stat_result | None) -> None:
        self._keeper = keeper
        self._held = held

    def hold(self, data_dir: Path) -> None:
        """
        From now on, and as long as the keeper is there, this data directory is ours alone.

        Raises:
            StartError: It is somebody else's.
        """
        file = lock(data_dir, os.getppid(), self._held)
        if file is not None:
            with suppress(BrokenPipeError):
                socket.send_fds(self._keeper, [b"hold\n"], [file])
            # Ours would outlive a keeper that is killed, and refuse the next one.
            os.close(file)

    def ray_started(self, session_dir: Path) -> None:
        """From now on Ray is watched, and this directory removed at the end."""
        self._say(str(session_dir))

    def ready(self) -> None:
        """From now on a child that ends is started again."""
        self._say("ready")

    def stopping(self) -> None:
        """From now on Ray may go: the child ends it itself, and then tells why by its code."""
        self._say("stopping")

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # a keeper that is gone has sent us SIGTERM
            self._keeper.sendall(f"{line}\n".encode())


class Pauses:
    """How long to wait before each start: not at all, and then 1 s, 2 s, 4 s, to 30 s."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def after(self, healthy_s: float) -> float:
        """The pause after a life of so many seconds; a minute of health forgives all."""
        pause_s = self._next_s if healthy_s < _HEALTHY_AFTER_S else 0.0
        self._next_s = min(_LONGEST_PAUSE_S, max(1.0, 2 * pause_s))
        return pause_s


def keep_running() -> Report:
    """
    Return in the child, each time that one is started. In the parent it does not return.

    The child starts with the signals blocked: it lets them in when it is prepared.

    Raises:
        SystemExit: In the parent, when everything has ended: with 0 after SIGINT or
            SIGTERM, with the child's code if its first start failed, and with 1 if it was
            killed while it ended for that.
    """
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pauses = Pauses()
    was_ready = False
    servers = _Servers()
    held = _Held()
    while True:
        child = _fork(held)
        if isinstance(child, Report):
            servers.let_go()
            return child
        try:
            lost = child.watch()
            was_ready = was_ready or child.was_ready
            servers.hold()
            child.clean_up()
            if not was_ready and child.failed:
                servers.end()
                if child.exit_code is not None and child.exit_code >= 0:
                    raise SystemExit(child.exit_code)  # it has said why
                _say(f"{lost}; the first start has failed")
                raise SystemExit(1)
            pause_s = pauses.after(child.healthy_s)
            again = f"again in {pause_s:g} s" if pause_s else "again"
            _say(f"{lost}; starting everything {again}")
            _pause(pause_s)
        except _StopAsked:
            child.stop()  # also one that is cleaned up already
            servers.end()
            raise SystemExit(0) from None


class _StopAsked(Exception):
    """SIGINT or SIGTERM has come."""


class _Child:
    """
    One life of the whole.

    Args:
        pid: The Ray driver.
        reports: Where it says how far it is.
        held: Where the lock goes that it hands over.
    """

    def __init__(self, pid: int, reports: socket.socket, held: _Held) -> None:
        self.exit_code: int | None = None
        self._pid = pid
        self._reports = reports
        self._held = held
        self._session_dir: Path | None = None
        self._vital: list[Process] = []
        self._began_s = time.monotonic()
        self._ready_s: float | None = None
        self._stopping_s: float | None = None
        self._ended_s: float | None = None

    @property
    def was_ready(self) -> bool:
        """Whether it ever worked."""
        return self._ready_s is not None

    @property
    def failed(self) -> bool:
        """
        Whether it gave up by itself.

        What is lost has not: its service may take events a moment before we hear that it is ready.
        """
        ended = self.exit_code is not None and self.exit_code >= 0
        return ended or self._stopping_s is not None

    @property
    def healthy_s(self) -> float:
        """How long it worked."""
        if self._ready_s is None:
            return 0.0
        return (self._ended_s or time.monotonic()) - self._ready_s

    def watch(self) -> str:
        """Return when it is lost, and say why."""
        while True:
            if self._lost():
                self._listen()  # it may have said before that it stops
            lost = self._lost()
            if lost is not None:
                self._ended_s = time.monotonic()
                return lost
            _next_signal(_LOOK_EVERY_S)
            self._wait()
            self._listen()

    def stop(self) -> None:
        """Let it end cleanly, as far as it can, and end what it leaves."""
        until_s = time.monotonic() + _STOP_WITHIN_S
        if self.exit_code is None:
            os.kill(self._pid, signal.SIGTERM)
        while self.exit_code is None and time.monotonic() < until_s:
            with suppress(_StopAsked):  # who asks twice changes nothing
                _next_signal(_LOOK_EVERY_S)
            self._wait()
            self._listen()
            if self._gone():
                until_s = min(until_s, time.monotonic() + _STOP_ALONE_WITHIN_S)
        self.clean_up()

    def clean_up(self) -> None:
        """Kill everything below but the embedded servers, and remove Ray's session."""
        until_s = time.monotonic() + _KILLED_WITHIN_S
        # Again and again: what is killed may just have begun something.
        while (left := below(os.getpid(), spare=_is_guard)) and time.monotonic() < until_s:
            send(signal.SIGKILL, left)
            time.sleep(0.01)
            self._wait()
        self._listen()  # to its last words
        self._reports.close()
        if self._session_dir is not None:
            shutil.rmtree(self._session_dir, ignore_errors=True)

    def _lost(self) -> str | None:
        if self.exit_code is not None:
            if self.exit_code < 0:
                return f"the Ray driver was killed by {signal.Signals(-self.exit_code).name}"
            return f"the Ray driver ended with code {self.exit_code}"
        if self._stopping_s is not None:
            if time.monotonic() - self._stopping_s > _STOP_WITHIN_S:
                return f"the Ray driver has not ended within {_STOP_WITHIN_S:g} s"
            return None
        if gone := self._gone():
            return gone
        if self._ready_s is None and time.monotonic() - self._began_s > _READY_WITHIN_S:
            return f"nothing was ready within {_READY_WITHIN_S:g} s"
        return None

    def _gone(self) -> str | None:
        if self._session_dir is not None:
            living = {process.name for process in self._vital if process.alive}
            for name in _VITAL:
                if name not in living:
                    return f"Ray's {name} has gone"
        return None

    def _listen(self) -> None:
        for line in self._said():
            if line == "ready":
                self._ready_s = time.monotonic()
            elif line == "stopping":
                self._stopping_s = time.monotonic()
            elif line != "hold":
                self._session_dir = Path(line)
                self._vital = [p for p in below(self._pid) if p.name in _VITAL]

    def _said(self) -> Iterator[str]:
        """Each line that has come; what came with one is held."""
        with suppress(OSError):  # nothing more for now, or it is closed
            while True:
                said, files, *_ = socket.recv_fds(self._reports, 4096, 1, socket.MSG_CMSG_CLOEXEC)
                for file in files:
                    self._held.take(file)
                if not said:
                    return
                yield from said.decode().splitlines()

    def _wait(self) -> None:
        self.exit_code = wait_for_ended().get(self._pid, self.exit_code)


class _Held:
    """The lock on the data directory, once a child has handed it over."""

    def __init__(self) -> None:
        self._file: int | None = None

    def take(self, file: int) -> None:
        """Hold this one from now on."""
        self.let_go()
        self._file = file

    def let_go(self) -> os.stat_result | None:
        """Leave it to others to hold it; says which file it was."""
        file, self._file = self._file, None
        if file is None:
            return None
        found = os.fstat(file)
        os.close(file)
        return found


def _fork(held: _Held) -> _Child | Report:
    reading, writing = socket.socketpair()
    keeper_pid = os.getpid()
    pid = os.fork()
    if pid:
        writing.close()
        reading.setblocking(False)
        return _Child(pid, reading, held)
    reading.close()
    # The keeper's alone, so that it ends with the keeper: what is closed here stays locked there.
    locked = held.let_go()
    # Out of the terminal's reach: Ctrl-C comes from the keeper, once, and never to Ray's own.
    os.setpgid(0, 0)
    end_with_parent()
    if os.getppid() != keeper_pid:
        raise SystemExit(1)  # it was killed before the kernel knew that we want to know
    return Report(writing, locked)


def _next_signal(within_s: float) -> None:
    """
    Wait for a signal, a child's end among them, or so long.

    Raises:
        _StopAsked: It asks for the end.
    """
    came = signal.sigtimedwait(_SIGNALS, within_s)
    if came is not None and came.si_signo in _STOP_SIGNALS:
        raise _StopAsked


def _pause(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        _next_signal(left_s)
        wait_for_ended()


class _Servers:
    """The embedded servers below us, which have a guard as their parent."""

    def __init__(self) -> None:
        self._leases: list[socket.socket] = []

    def hold(self) -> None:
        """Keep them running however long the next start takes: a connection is a lease."""
        self.let_go()
        for guard in _guards():
            for argument in guard.arguments:
                name, _, value = argument.partition("=")
                if name == "--data-dir":
                    lease = socket.socket(socket.AF_UNIX)
                    self._leases.append(lease)
                    with suppress(OSError):  # it may be ending
                        lease.connect(str(control_socket(Path(value))))

    def let_go(self) -> None:
        """Leave it to others to hold them."""
        for lease in self._leases:
            lease.close()
        self._leases.clear()

    def end(self) -> None:
        """End them where a child that was killed could not."""
        guards = _guards()
        send(signal.SIGTERM, guards)
        until_s = time.monotonic() + _GUARD_WITHIN_S
        while any(guard.alive for guard in guards) and time.monotonic() < until_s:
            time.sleep(0.01)
        wait_for_ended()


def _guards() -> list[Process]:
    return [process for process in below(os.getpid()) if _is_guard(process)]


def _is_guard(process: Process) -> bool:
    return _GUARD in process.arguments


def _say(text: str) -> None:
    click.echo(f"ray-tracking: {text}", err=True)
