"""
One connection to Redis on which many commands go out in one write.

For appends only, where redis-py's own pipeline costs four times as much, and where it
must be known of each command whether its answer has come. Everything else goes through
redis-py; the URL means the same here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.asyncio.connection import parse_url

_READ_BYTES = 64 * 1024

Command = tuple[Any, ...]


class Wire:
    """
    A connection, from :meth:`open` to :meth:`close`.

    Args:
        reader: Of the connection.
        writer: Of the connection.
        timeout_s: How long one answer may take.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._parser = hiredis.Reader()

    @classmethod
    async def open(cls, url: str, timeout_s: float) -> Wire:
        """
        Connect, log in, and select the database.

        Raises:
            OSError: If it cannot be reached, or does not let us in.
            TimeoutError: If it does not answer in time.
        """
        options: dict[str, Any] = parse_url(url)
        async with asyncio.timeout(timeout_s):
            if path := options.get("path"):
                reader, writer = await asyncio.open_unix_connection(path)
            else:
                reader, writer = await asyncio.open_connection(
                    options.get("host", "localhost"),
                    options.get("port", 6379),
                    ssl=_tls(options) if url.startswith("rediss:") else None,
                )
        wire = cls(reader, writer, timeout_s)
        for command in _greeting(options):
            await wire.send([command])
            if isinstance(answer := await wire.receive(), hiredis.ReplyError):
                await wire.close()
                raise ConnectionError(str(answer))
        return wire

    async def send(self, commands: Sequence[Command]) -> None:
        """Send commands; as many answers will come."""
        self._writer.write(b"".join([hiredis.pack_command(command) for command in commands]))
        async with asyncio.timeout(self._timeout_s):
            await self._writer.drain()

    async def receive(self) -> Any:
        """
        The next answer; an error of the server is returned, not raised.

        Raises:
            OSError, TimeoutError: Whether the command was carried out is open.
        """
        while (answer := self._parser.gets()) is False:
            async with asyncio.timeout(self._timeout_s):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._parser.feed(data)
        return answer

    async def close(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()


def _greeting(options: dict[str, Any]) -> list[Command]:
    greeting: list[Command] = []
    if password := options.get("password"):
        user = options.get("username")
        greeting.append(("AUTH", user, password) if user else ("AUTH", password))
    if database := options.get("db"):
        greeting.append(("SELECT", str(database)))
    return greeting


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if str(options.get("ssl_check_hostname", "true")).lower() == "false":
        context.check_hostname = False
    if options.get("ssl_cert_reqs") in ("none", "CERT_NONE"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
