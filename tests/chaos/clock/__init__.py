"""A wall clock that can be set for one service alone, without setting the machine's."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
#: Without one, nobody can build what servers need for it.
COMPILER = shutil.which("cc")


class WallClock:
    """
    What the processes of a service take for the time of day.

    Args:
        directory: Gets the file that says how wrong it is, and what reads it.
    """

    def __init__(self, directory: Path) -> None:
        assert COMPILER is not None
        directory.mkdir()
        self._file = directory / "ahead"
        self._library = directory / "servers.so"
        self.set(0)
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O1", "-o", self._library, _HERE / "servers.c", "-ldl"],
            check=True,
        )

    def set(self, ahead_s: int) -> None:
        """So many seconds from the right time, from now on, for every process."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("<q", ahead_s))

    @property
    def python_path(self) -> str:
        """Where Python finds the part that is for itself."""
        return str(_HERE)

    @property
    def settings(self) -> dict[str, str]:
        """The environment of processes that go by it, beside ``PYTHONPATH``."""
        return {
            "LD_PRELOAD": str(self._library),
            "WRONG_CLOCK_FILE": str(self._file),
        }
