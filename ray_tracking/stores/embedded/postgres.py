"""
Postgres on a directory of ours: made once, then started as often as needed.

It is reached through a Unix socket only, in a directory that is open to its user alone;
this is why it asks for no password. Every acknowledged commit is on the disk.
A database that was only half made is thrown away: it is made beside its place and moved
there when it is complete.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from ray_tracking.errors import StartError
from ray_tracking.stores.embedded import identity
from ray_tracking.stores.embedded.paths import make_private, socket_dir
from ray_tracking.stores.embedded.server import Server

_SOCKET = ".s.PGSQL.5432"

#: Pages that are held in memory, where nothing else is asked for.
BUFFERS_MIB = 256
#: For one small machine that mostly inserts.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "fsync": "on",
    "synchronous_commit": "on",
    # After a checkpoint each page is logged in full once: so few checkpoints, and small pages.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "autovacuum": "on",
    "jit": "off",
    # Few processes: no workers for I/O, parallel queries or replication.
    "io_method": "sync",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_worker_slots": "3",
    "autovacuum_max_workers": "2",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class Postgres(Server):
    """
    Args:
        data_dir: Ours; Postgres gets ``postgres/`` in it.
        binaries: The directory of ``postgres`` and ``initdb``.
        namespace: Whether root may use a user namespace.
        buffers_mib: How many of its pages are held in memory.

    Raises:
        StartError: Nobody here may run Postgres on this directory.
    """

    name: ClassVar[str] = "postgres"
    program: ClassVar[str] = "postgres"
    #: "Fast": sessions are ended, everything is written. SIGTERM would wait for the sessions.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(
        self,
        data_dir: Path,
        binaries: Path,
        *,
        namespace: bool = True,
        buffers_mib: int = BUFFERS_MIB,
    ) -> None:
        home = data_dir / "postgres"
        super().__init__(home, socket_dir(home, _SOCKET), data_dir / "postgres.log")
        self._binaries = binaries
        self._buffers_mib = buffers_mib
        self._data = home / "data"
        self._identity = identity.choose(self._data, namespace=namespace)
        if self._identity.way == "setuid":
            _let_group_pass(data_dir, self._identity.gid)
        identity.check_access(self._identity, [data_dir, binaries / "postgres"])
        for directory in {home, self.sockets}:
            make_private(directory, self._identity.uid, self._identity.gid)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/ray_tracking?host={quote(str(self.sockets))}"

    def assume_identity(self) -> None:
        self._identity.assume()

    def prepare(self) -> list[str]:
        if not (self._data / "PG_VERSION").exists():
            self._make_database()
        # Postgres trusts the pid in these, and that may be a stranger's by now.
        self.clean_up()
        sockets = str(self.sockets).replace('"', '""')
        settings = {
            **_SETTINGS,
            "shared_buffers": f"{self._buffers_mib}MB",
            "unix_socket_directories": f'"{sockets}"',
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), *options]

    def is_ready(self, pid: int) -> bool:
        # The postmaster says it in the eighth line of its pid file; pg_ctl waits for the same.
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def clean_up(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (self.sockets / _SOCKET).unlink(missing_ok=True)
        (self.sockets / f"{_SOCKET}.lock").unlink(missing_ok=True)

    def _make_database(self) -> None:
        if self._data.exists() and any(self._data.iterdir()):
            raise StartError(
                f"{self._data} holds something that is no Postgres database: move it away, "
                "or choose another TRACKING_DATA_DIR"
            )
        half_made = self.directory / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        # The built-in locale sorts alike on every machine, whatever its C library.
        self.run(
            [
                *(str(self._binaries / "initdb"), "-D", str(half_made), "--username=postgres"),
                *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ]
        )
        self.run(
            [str(self._binaries / "postgres"), "--single", "-j", "-D", str(half_made), "postgres"],
            text="CREATE DATABASE ray_tracking;\n\n",
        )
        half_made.rename(self._data)
        descriptor = os.open(self.directory, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _let_group_pass(data_dir: Path, gid: int) -> None:
    """
    Let the Postgres user through to its directory: through, not in.

    Only a data directory that is ours and closed to everybody is touched.
    """
    found = data_dir.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 == 0:
        os.chown(data_dir, -1, gid)
        data_dir.chmod(0o710)
