"""
Reading many streams of the log over and over, on a connection of its own.

redis-py takes several times the processor time for the same answers, which counts for a reader
that asks a hundred times a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hiredis

from ray_tracking.errors import LogUnavailable
from ray_tracking.pipeline.append import BadEntry, Entry, EntryId, decode_entry
from ray_tracking.pipeline.flush import Where
from ray_tracking.stores.log import stream_key
from ray_tracking.stores.wire import Wire


class LogReader:
    """
    Reads.

    Args:
        url: Of Redis.
        prefix: Before each key.
        timeout_s: How long one answer may take.
    """

    def __init__(self, url: str, prefix: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._keys: dict[Where, bytes] = {}
        self._wheres: dict[bytes, Where] = {}
        #: Streams in which the last read met an entry that cannot be read, and why; of them it
        #: gave what stands before.
        self.unreadable: dict[Where, str] = {}

    async def read(
        self, positions: Mapping[Where, EntryId], *, max_entries: int, block_ms: int | None
    ) -> dict[Where, list[Entry]]:
        """
        The entries after each position, of streams that have any.

        Args:
            positions: Where each stream has been read to.
            max_entries: At most as many of each stream.
            block_ms: How long to wait for the first; None not to wait.

        Raises:
            LogUnavailable: If the server does not answer.
        """
        command: list[Any] = ["XREAD", "COUNT", max_entries]
        if block_ms is not None:
            command += ["BLOCK", block_ms]
        command.append("STREAMS")
        command += [self._key(where) for where in positions]
        command += [str(after) for after in positions.values()]
        answer = await self._ask(tuple(command))
        self.unreadable = {}
        return {self._wheres[key]: self._decoded(key, items) for key, items in answer or ()}

    def _decoded(self, key: bytes, items: Sequence[Any]) -> list[Entry]:
        entries = []
        for entry_id, fields in items:
            try:
                its = dict(zip(fields[::2], fields[1::2], strict=True))
                entries.append(decode_entry(entry_id, its))
            except BadEntry as error:
                self.unreadable[self._wheres[key]] = f"{key.decode()}: {error}"
                break
        return entries

    async def close(self) -> None:
        """Drop the connection."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        try:
            if self._wire is None:
                self._wire = await Wire.open(self._url, self._timeout_s)
            await self._wire.send([command])
            answer = await self._wire.receive()
        except BaseException as error:
            # Cut off between question and answer: what comes next would be taken for another's.
            await self.close()
            if isinstance(error, OSError | TimeoutError):
                raise LogUnavailable(f"the event log does not answer: {error}") from error
            raise
        if isinstance(answer, hiredis.ReplyError):
            raise LogUnavailable(f"the event log does not answer: {answer}")
        return answer

    def _key(self, where: Where) -> bytes:
        key = self._keys.get(where)
        if key is None:
            key = self._keys[where] = stream_key(self._prefix, *where).encode()
            self._wheres[key] = where
        return key
