"""
Where the data directory is, when the user gave a relative path.

It is taken from the current directory, as a user expects of a command. Only inside
a Ray session folder it is not: Ray unpacks a shipped ``working_dir`` there and
deletes it with the session, and the log and its keys must outlive that. Then it is
taken from the home directory.
"""

from __future__ import annotations

import re
from pathlib import Path

DEFAULT_DATA_DIR = Path(".ray_tracking")

_SESSION = re.compile(r"session_(latest|\d{4}-\d\d-\d\d_.+)")


def resolve_data_dir(data_dir: Path, cwd: Path | None = None, home: Path | None = None) -> Path:
    """The absolute data directory, for a process that runs in ``cwd``."""
    data_dir = data_dir.expanduser()
    if data_dir.is_absolute():
        return data_dir
    cwd = cwd or Path.cwd()
    base = (home or Path.home()) if in_ray_session(cwd) else cwd
    return (base / data_dir).absolute()


def in_ray_session(path: Path) -> bool:
    """Whether Ray made this directory for one session."""
    return any(_SESSION.fullmatch(part) for part in path.parts)
