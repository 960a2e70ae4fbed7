"""
One server process: started alone on its directory, watched, started again when it dies.

:meth:`Server.tick` is called again and again and never waits long. A server that dies is
started again at once, then after growing pauses. One that has never come up gives up
after a few tries and raises with the end of its log. Before each start, processes that an
earlier owner left behind in the directory are ended: two of them on one set of files
would be the end of the data.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from ray_tracking.errors import StartError
from ray_tracking.stores.embedded.paths import one_line, tail

logger = logging.getLogger("guard")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

#: Tries of a server that has never been ready.
_MAX_FAILURES = 5
#: Whoever ran this long did not die from starting.
_STEADY_S = 10.0
_LONGEST_PAUSE_S = 5.0
#: Patience with what an earlier owner left behind; then SIGKILL, which both servers survive.
_ORPHAN_S = 5.0
_MAX_LOG_BYTES = 10 * 1024 * 1024
#: Nothing of the application's environment reaches the servers.
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}


class Server(ABC):
    """
    A server that lives in one directory.

    Args:
        directory: Its working directory: this is also how its processes are recognised.
        sockets: Where its sockets are, open to its user alone.
        log: The file that takes its output, bounded.
    """

    name: ClassVar[str]
    #: What the kernel calls its processes.
    program: ClassVar[str]
    #: Ends it cleanly and soon.
    stop_signal: ClassVar[signal.Signals]
    #: Beside what every server gets.
    environment: Mapping[str, str] = MappingProxyType({})

    def __init__(self, directory: Path, sockets: Path, log: Path) -> None:
        self.directory = directory
        self.sockets = sockets
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self._was_ready = False
        self._failures = 0
        self._start_at_s = 0.0
        self._started_at_s = 0.0
        self._log_start = 0
        self._orphans_until_s: float | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @abstractmethod
    def prepare(self) -> list[str]:
        """Bring the directory into order; nobody works in it. Returns the command to run."""

    @abstractmethod
    def is_ready(self, pid: int) -> bool:
        """Whether it serves clients now."""

    @abstractmethod
    def clean_up(self) -> None:
        """Remove what it leaves outside of its data: sockets and pid files."""

    @abstractmethod
    def assume_identity(self) -> None:
        """Become the server's user. Runs in the child, before exec."""

    def tick(self, now_s: float) -> None:
        """
        Take the next step towards a ready server, if one is due.

        Raises:
            StartError: It does not come up at all.
        """
        if self.process is not None:
            code = self.process.poll()
            if code is not None:
                self._failed(f"ended ({code}): {tail(self.log, self._log_start)}", now_s)
            elif not self.ready and self.is_ready(self.process.pid):
                self.ready = self._was_ready = True
                logger.info("%s is ready after %.2f s", self.name, now_s - self._started_at_s)
        if self.process is None and now_s >= self._start_at_s and self._alone(now_s):
            try:
                self._start(now_s)
            except StartError as error:
                # Not a matter of patience, as long as nobody uses it yet.
                if not self._was_ready:
                    raise
                self._failed(str(error), now_s)
            except (OSError, subprocess.SubprocessError) as error:
                self._failed(str(error), now_s)

    def bound_log(self) -> None:
        """Keep one full log beside the current one; the server appends, so it may stay open."""
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            with contextlib.suppress(OSError):
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def kill(self, number: signal.Signals) -> None:
        """Signal the process, if there is one."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def run(self, command: list[str], *, text: str = "") -> None:
        """Run a short-lived program as the server's user."""
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env=_ENVIRONMENT,
            preexec_fn=self._child_setup(signal.SIGTERM),
            check=False,
        )
        if done.returncode != 0:
            said = one_line(done.stdout.decode(errors="replace"))
            raise StartError(f"{Path(command[0]).name} failed ({done.returncode}): {said}")

    def _start(self, now_s: float) -> None:
        self._started_at_s = now_s
        self.bound_log()
        command = self.prepare()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**_ENVIRONMENT, **self.environment},
                preexec_fn=self._child_setup(self.stop_signal),
            )

    def _child_setup(self, death_signal: signal.Signals) -> _ChildSetup:
        return _ChildSetup(self, death_signal, os.getpid())

    def _failed(self, reason: str, now_s: float) -> None:
        steady = self.ready and now_s - self._started_at_s > _STEADY_S
        self._failures = 1 if steady else self._failures + 1
        self.process, self.ready = None, False
        if not self._was_ready and self._failures >= _MAX_FAILURES:
            raise StartError(f"{self.name} does not start: {reason}")
        pause_s = min(_LONGEST_PAUSE_S, 0.05 * (2 ** (self._failures - 1) - 1))
        self._start_at_s = now_s + pause_s
        logger.warning("%s %s; again in %.2f s", self.name, reason, pause_s)

    def _alone(self, now_s: float) -> bool:
        orphans = list(processes_in(self.directory, self.program))
        if not orphans:
            self._orphans_until_s = None
            return True
        number = self.stop_signal
        if self._orphans_until_s is None:
            logger.warning("ending %s left behind: %s", self.name, orphans)
            self._orphans_until_s = now_s + _ORPHAN_S
        elif now_s > self._orphans_until_s:
            number = signal.SIGKILL
        for pid in orphans:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        self._start_at_s = now_s + 0.05
        return False


class _ChildSetup:
    """What a child does between fork and exec: become the user, and die with the guard."""

    def __init__(self, server: Server, death_signal: signal.Signals, parent: int) -> None:
        self._server, self._signal, self._parent = server, death_signal, parent

    def __call__(self) -> None:
        self._server.assume_identity()
        # After the change of user, which clears it.
        _libc.prctl(_PR_SET_PDEATHSIG, int(self._signal), 0, 0, 0)
        if os.getppid() != self._parent:
            os._exit(1)


def processes_in(directory: Path, program: str) -> Iterator[int]:
    """
    The processes of a program that work in a directory or below it.

    This asks the kernel, not a pid file: a pid file may be missing or garbage, or name
    a process that has nothing to do with us.
    """
    home = os.fsencode(directory)
    for entry in os.scandir(b"/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if Path(os.fsdecode(entry.path), "comm").read_text().strip() != program:
                continue
            try:
                places = [os.readlink(entry.path + b"/cwd")]
            except PermissionError:
                # Another user's, in a container without ptrace: its arguments are open.
                places = Path(os.fsdecode(entry.path), "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(place == home or place.startswith(home + b"/") for place in places):
            yield int(entry.name)
