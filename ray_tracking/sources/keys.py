"""The keys of tracking tokens: the user's own, or one that is made once and kept with the data."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ray_tracking.errors import StartError

FILE_NAME = "tracking.key"


def read_keys(configured: Sequence[str], data_dir: Path, *, make: bool = False) -> list[str]:
    """
    The ring of keys, newest first.

    Args:
        configured: What the user has set; used as it is where there is any.
        data_dir: Where our own key is.
        make: Make it if there is none yet.

    Raises:
        StartError: If there is no key, and none may be made.
    """
    if configured:
        return list(configured)
    path = data_dir / FILE_NAME
    if make and not path.exists():
        _make(path)
    try:
        return [path.read_text().strip()]
    except OSError as error:
        raise StartError(
            f"there is no key for tracking tokens: EMAIL_ENCRYPTION_KEY is not set and {path} "
            f"cannot be read ({error.strerror}); it is made at the first start"
        ) from None


def _make(path: Path) -> None:
    """Whole or not at all: a key that was cut short would unmake every link signed with it."""
    fresh = path.with_suffix(".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
