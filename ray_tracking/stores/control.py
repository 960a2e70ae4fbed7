"""
The rules in force, beside the log: a hash with the record, its version, and who wrote it last.

Of several supervisors, as during a redeployment, the one that came last writes; the others see
that somebody came after them, and do not.
"""

from __future__ import annotations

from ray_tracking.pipeline.control import Control, version_of
from ray_tracking.stores.log import EventLog, answering


class ControlStore:
    """
    Every call raises :class:`LogUnavailable` if Redis does not answer.

    Args:
        event_log: Beside which it stands.
    """

    def __init__(self, event_log: EventLog) -> None:
        self._redis = event_log.redis
        self._key = f"{event_log.prefix}control"
        #: Of what was read or written last.
        self.version = b""
        self._epoch = 0

    async def read(self) -> Control | None:
        """What is in force, if that is something else than what was read or written last."""
        with answering():
            if await self._redis.hget(self._key, "version") in (None, self.version):
                return None
            version, raw = await self._redis.hmget(self._key, "version", "control")
        try:
            control = Control.decode(raw or b"")
        except ValueError:
            return None  # of another release, whose supervisor will be replaced, or has been
        self.version = version
        return control

    async def begin(self, base: bytes) -> bool:
        """
        Become the one who writes.

        Args:
            base: Names what the settings say without any change.

        Returns:
            Whether what stands there was written for the same settings.
        """
        with answering():
            self._epoch = await self._redis.hincrby(self._key, "epoch", 1)
            found = await self._redis.hget(self._key, "base")
            await self._redis.hset(self._key, "base", base)
        return bool(found == base)

    async def write(self, control: Control, base: bytes) -> bool:
        """
        Put the rules there, if that is not done yet.

        Returns:
            False if somebody has begun after us: then nothing is written.
        """
        raw = control.encode()
        version = version_of(raw)
        with answering():
            stored, epoch = await self._redis.hmget(self._key, "version", "epoch")
            if int(epoch or 0) > self._epoch:
                return False
            if stored != version or epoch is None:
                fields = {"version": version, "control": raw, "base": base, "epoch": self._epoch}
                await self._redis.hset(self._key, mapping=fields)
        self.version = version
        return True
