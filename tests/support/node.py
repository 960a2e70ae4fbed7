"""Clients that run in Node, from npm and unchanged."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

_SOURCES = Path(__file__).parent.parent / "clients"
_INSTALL_WITHIN_S = 120
_WITHIN_S = 15.0


def installed() -> Path:
    """
    The directory where the clients are, with their packages.

    They are installed once for each lock file, below the user's cache. A machine without Node
    skips at home with a reason, and fails in CI.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        reason = "node and npm are not on this machine"
        if os.environ.get("CI"):  # noqa: TID251
            pytest.fail(reason)
        pytest.skip(reason)
    lock = (_SOURCES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))  # noqa: TID251
    directory = cache / "ray-tracking-tests" / blake2b(lock, digest_size=6).hexdigest()
    directory.mkdir(parents=True, exist_ok=True)
    for source in _SOURCES.iterdir():
        shutil.copy(source, directory)
    if not (directory / "node_modules" / ".package-lock.json").exists():
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=_INSTALL_WITHIN_S,
        )
    return directory


class NodeClient:
    """
    A running client; it prints what it hears.

    Args:
        script: Which one.
        arguments: For it.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        self._command = ["node", script, *arguments]
        self._process: asyncio.subprocess.Process | None = None
        self.heard: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=installed(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def say(self, *value: Any) -> None:
        """Have it send something: an event with its data, or one message."""
        assert self._process is not None
        assert self._process.stdin is not None
        text = json.dumps(value[0] if len(value) == 1 else value)
        self._process.stdin.write(text.encode() + b"\n")
        await self._process.stdin.drain()

    async def until(
        self,
        event: str,
        check: Callable[[Any], Any] = lambda data: True,
        within_s: float = _WITHIN_S,
    ) -> dict[str, Any]:
        """The next thing that it hears under that name and that passes the check."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                while line := await self._process.stdout.readline():
                    told = json.loads(line)
                    self.heard.append(told)
                    if told["event"] == event and check(told["data"]):
                        return told  # type: ignore[no-any-return]
        except TimeoutError:
            raise AssertionError(f"no {event} within {within_s} s: {self.heard}") from None
        raise AssertionError(f"the client has ended: {self.heard}")
