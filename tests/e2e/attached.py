"""Processes that find a service by its Ray alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.service import Service, eventually

REPOSITORY = Path(__file__).parents[2]
HEARS_WITHIN_S = 40.0


def attached(service: Service, module: str, *arguments: str) -> subprocess.Popen[str]:
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
        stderr=subprocess.PIPE,
        text=True,
    )


class Listener:
    """
    A process that hears of everything, and what it has heard.

    Args:
        service: Of whom.
    """

    def __init__(self, service: Service) -> None:
        self._process = attached(service, "tests.support.listening_process")
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

        return eventually(look, HEARS_WITHIN_S, f"{event}; heard {self.heard[-5:]}")[0]

    def kill(self) -> None:
        """Its Ray is gone."""
        self._process.kill()
        self._process.communicate()

    def end(self) -> str:
        """Have it shut down; what it has logged."""
        _, logged = self._process.communicate(timeout=30)
        self._reading.join(10)
        return logged
