"""
One ``ray-tracking run`` for each data directory.

A lock on a file in it, which the kernel takes back when its last holder has ended, however it
did. The child takes the lock, because only it knows the settings, and hands it to its keeper,
which holds it through all of the child's lives; see :mod:`ray_tracking.cli.keeper`.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ray_tracking.errors import StartError

LOCK_NAME = "run.lock"


def lock(data_dir: Path, pid: int, held: os.stat_result | None) -> int | None:
    """
    Lock the data directory, which is made if it is missing.

    Args:
        data_dir: Which.
        pid: The process that is going to hold the lock; others are told.
        held: The file that it has locked already, if any.

    Returns:
        The open file that is the lock; None if it is held already.

    Raises:
        StartError: Another process holds it, or it cannot be had.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"data_dir: {data_dir} cannot be used: {error.strerror}") from None
    try:
        if held is not None and os.path.samestat(held, os.fstat(file)):
            os.close(file)
            return None
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file, 0)
        os.write(file, b"%d\n" % pid)
    except BlockingIOError:
        holder = os.pread(file, 32, 0).decode(errors="replace").strip()
        os.close(file)
        process = f" (process {holder})" if holder.isdecimal() else ""
        raise StartError(
            f"data_dir: {data_dir} is in use by ray-tracking run{process}; "
            "stop it, or choose another TRACKING_DATA_DIR"
        ) from None
    except OSError as error:
        os.close(file)
        raise StartError(f"data_dir: {data_dir} cannot be locked: {error.strerror}") from None
    return file
