"""Processes that find a service by its Ray alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tests.e2e.service import Service, eventually

REPOSITORY = Path(__file__).parents[2]
HEARS_WITHIN_S = 40.0


def attached(
    service: Service, module: str, *arguments: str, logs: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A process that belongs to nobody, and finds the service by its Ray alone."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251
            "RAY_ADDRESS": service.ray_address,
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=logs,
        text=True,
    )


class Listener:
    """
    A process that hears of everything, and what it has heard.

    Args:
        service: Of whom.
    """

    def __init__(self, service: Service) -> None:
        # Not into a pipe: it would stand still when nobody reads that.
        self._logs = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = attached(service, "tests.support.listening_process", logs=self._logs)
        self.heard: list[list[Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.until("initialized")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.heard.append(json.loads(line))

    def until(
        self, event: str, check: Callable[..., Any] = lambda *payload: True, since: int = 0
    ) -> list[Any]:
        """The payload of the first such event that passes the check."""

        def look() -> list[list[Any]]:
            return [
                payload
                for name, *payload in self.heard[since:]
                if name == event and check(*payload)
            ]

        try:
            return eventually(look, HEARS_WITHIN_S, event)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}; heard {self.heard[since:][-5:]}") from None

    def kill(self) -> None:
        """Its Ray is gone."""
        self._process.kill()
        self._process.communicate()
        self._logs.close()

    def end(self) -> str:
        """Have it shut down; what it has logged."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reading.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        with self._logs:
            self._logs.seek(0)
            return self._logs.read()
