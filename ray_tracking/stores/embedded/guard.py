"""
The guard: the process that owns the embedded servers of one data directory.

* It is the servers' parent, alone in its session: neither Ctrl-C nor the end of the
  application reaches them before it.
* It holds a lock on the data directory, so there is one guard for each.
* **An open connection to its socket is a lease.** While there is none, it waits for
  ``--grace`` seconds, then stops the servers and ends: an application that was killed
  and started again finds them still running.
* Should it be killed itself, the kernel ends the servers, and the next guard makes sure.

It speaks lines of JSON. To each new connection it says ``{"version", "pid", "servers"}``,
and ``{"ready", "database_url", "redis_url", "pids"}`` as soon as the servers serve, or
``{"error"}`` when they never will. It understands the line ``stop`` and answers
``{"stopped"}``. It closes a connection only by ending.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ray_tracking.errors import StartError
from ray_tracking.stores.embedded.paths import (
    PROTOCOL_VERSION,
    control_socket,
    make_private,
    remove_if_short,
)
from ray_tracking.stores.embedded.postgres import BUFFERS_MIB, Postgres
from ray_tracking.stores.embedded.server import Server
from ray_tracking.stores.embedded.valkey import Valkey

logger = logging.getLogger("guard")

_STOP_S = 8.0
_STARTER_S = 2.0
_STARTING_TICK_S = 0.01
_IDLE_TICK_S = 30.0
_MAX_LOG_BYTES = 1024 * 1024


class Guard:
    """
    Args:
        listener: The control socket, listening.
        servers: What to run.
        grace_s: How long it goes on without a connection.
    """

    def __init__(
        self, listener: socket.socket, servers: Sequence[Server], *, grace_s: float
    ) -> None:
        self._listener = listener
        self._servers = servers
        self._grace_s = grace_s
        self._alone_since_s = time.monotonic()
        #: Each connection, and whether it knows that the servers are ready.
        self._leases: dict[socket.socket, bool] = {}
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._listen_to_signals()

    def run(self) -> None:
        """Keep the servers running until nobody wants them, then end them."""
        try:
            while not self._stopping:
                self._turn()
        except (StartError, OSError) as error:
            logger.error("%s", error)
            self._await_starter()
            self._tell(list(self._leases), {"error": str(error)})
        finally:
            control = Path(self._listener.getsockname())
            control.unlink(missing_ok=True)
            self._stop_servers()
            self._tell(list(self._leases), {"stopped": True})
            logger.info("guard ends")

    def _turn(self) -> None:
        now_s = time.monotonic()
        for server in self._servers:
            server.tick(now_s)
        ready = all(server.ready for server in self._servers)
        if ready:
            self._announce()
        if self._wait(_IDLE_TICK_S if ready else _STARTING_TICK_S):
            return
        # Only with nothing left to read: a connection may have been waiting all the while.
        if not self._leases and time.monotonic() - self._alone_since_s >= self._grace_s:
            logger.info("nobody has needed the servers for %g s", self._grace_s)
            self._stopping = True
        for server in self._servers:
            server.bound_log()

    def _wait(self, timeout_s: float) -> bool:
        """Handle what comes in, a child's death included. Returns whether anything did."""
        if not self._leases:
            left_s = self._alone_since_s + self._grace_s - time.monotonic()
            timeout_s = min(timeout_s, max(0.0, left_s))
        events = self._selector.select(timeout_s)
        for key, _ in events:
            source = key.fileobj
            assert isinstance(source, socket.socket)
            if source is self._listener:
                self._accept()
            elif source in self._leases:
                self._hear(source)
            else:
                self._handle_signals(source.recv(256))
        return bool(events)

    def _await_starter(self) -> None:
        """Let the starter connect, which has heard only that we listen: it is owed the error."""
        until_s = time.monotonic() + _STARTER_S
        while not self._leases and time.monotonic() < until_s:
            self._wait(_STARTING_TICK_S)

    def _accept(self) -> None:
        lease, _ = self._listener.accept()
        lease.settimeout(1.0)
        self._leases[lease] = False
        self._selector.register(lease, selectors.EVENT_READ)
        names = [server.name for server in self._servers]
        self._tell([lease], {"version": PROTOCOL_VERSION, "pid": os.getpid(), "servers": names})

    def _hear(self, lease: socket.socket) -> None:
        try:
            said = lease.recv(4096)
        except OSError:
            said = b""
        if not said:
            self._drop(lease)
        elif b"stop\n" in said:
            logger.info("asked to stop")
            self._stopping = True

    def _announce(self) -> None:
        new = [lease for lease, knows in self._leases.items() if not knows]
        urls = {server.name: server.url for server in self._servers}
        running = {s.name: s.process.pid for s in self._servers if s.process is not None}
        message: dict[str, object] = {
            "ready": True,
            "database_url": urls.get("postgres"),
            "redis_url": urls.get("valkey"),
            "pids": running,
        }
        self._leases.update(dict.fromkeys(new, True))
        self._tell(new, message)

    def _tell(self, leases: list[socket.socket], message: dict[str, object]) -> None:
        for lease in leases:
            try:
                lease.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                self._drop(lease)

    def _drop(self, lease: socket.socket) -> None:
        self._selector.unregister(lease)
        del self._leases[lease]
        lease.close()
        if not self._leases:
            self._alone_since_s = time.monotonic()

    def _listen_to_signals(self) -> None:
        # Handlers that do nothing, not SIG_IGN: the servers would inherit that.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        reader, self._wakeup = socket.socketpair()
        reader.setblocking(False)
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ)

    def _handle_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            logger.info("SIGTERM")
            self._stopping = True

    def _stop_servers(self) -> None:
        for server in self._servers:
            server.kill(server.stop_signal)
        until_s = time.monotonic() + _STOP_S
        for server in self._servers:
            while server.process is not None and server.process.poll() is None:
                if time.monotonic() > until_s:
                    logger.warning("%s does not end: killed", server.name)
                    server.kill(signal.SIGKILL)
                time.sleep(0.01)
            server.clean_up()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, become a daemon, tell the starter how it went, and guard."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--grace", type=float, required=True, help="seconds without a lease")
    parser.add_argument("--postgres", type=Path, help="directory with the Postgres binaries")
    parser.add_argument("--postgres-buffers-mib", type=int, default=BUFFERS_MIB)
    parser.add_argument("--valkey", type=Path, help="the valkey-server")
    parser.add_argument("--no-namespace", action="store_true", help="no user namespace for root")
    options = parser.parse_args(arguments)
    # A child of init: Ray ends the children of a worker that ends.
    if os.fork() > 0:
        os._exit(0)
    _shed_what_a_worker_passes_on()
    data_dir: Path = options.data_dir.resolve()
    with contextlib.ExitStack() as stack:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.umask(0o077)
            if not _lock(data_dir, stack):
                _report({"busy": True})
                return
            _log_to(data_dir / "guard.log")
            servers = _servers(data_dir, options)
            control = control_socket(data_dir)
            if control.parent != data_dir:
                make_private(control.parent, os.geteuid(), os.getegid())
            listener = stack.enter_context(_listen(control))
        except (StartError, OSError) as error:
            _report({"error": str(error)})
            return
        _report({"listening": True})
        _turn_output_to(data_dir / "guard.log")
        logger.info("guard %d starts %s", os.getpid(), ", ".join(s.name for s in servers))
        Guard(listener, servers, grace_s=options.grace).run()
        for directory in (*(server.sockets for server in servers), control.parent):
            remove_if_short(directory)


def _shed_what_a_worker_passes_on() -> None:
    """Ray makes its workers nice, and the first to go when memory is short: not the servers."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with contextlib.suppress(OSError):
        # Only root may do this. Others start Ray with RAY_worker_niceness=0.
        os.setpriority(os.PRIO_PROCESS, 0, min(0, os.getpriority(os.PRIO_PROCESS, 0)))
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        if int(score.read_text()) > 0:
            score.write_text("0")


def _lock(data_dir: Path, stack: contextlib.ExitStack) -> bool:
    # Never removed: a lock on a file that has lost its name would keep nobody out.
    file = stack.enter_context((data_dir / "guard.lock").open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return True


def _servers(data_dir: Path, options: argparse.Namespace) -> list[Server]:
    servers: list[Server] = []
    # Valkey first: it comes up while initdb keeps us busy.
    if options.valkey is not None:
        servers.append(Valkey(data_dir, options.valkey))
    if options.postgres is not None:
        namespace = not options.no_namespace
        buffers_mib = options.postgres_buffers_mib
        servers.append(
            Postgres(data_dir, options.postgres, namespace=namespace, buffers_mib=buffers_mib)
        )
    return servers


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    return listener


def _report(result: dict[str, object]) -> None:
    print(json.dumps(result), flush=True)


def _log_to(log: Path) -> None:
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        os.truncate(log, 0)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        filename=log, level=logging.INFO, format="%(asctime)sZ %(levelname)s %(message)s"
    )


def _turn_output_to(log: Path) -> None:
    """Let go of the starter's pipe; a traceback goes to the log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


if __name__ == "__main__":
    main()
