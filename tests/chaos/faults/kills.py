"""``kill -9``, and its cousin that lets a process sleep until it is a zombie."""

from __future__ import annotations

import asyncio
import signal
from typing import ClassVar

from tests.chaos.faults.base import Fault
from tests.chaos.processes import Process

_ENDS_WITHIN_S = 10.0


class Kill(Fault):
    """``kill -9`` of one process of a kind."""

    kind: ClassVar[str]

    async def strike(self) -> bool:
        there = self.target.processes(self.kind)
        if not there or not self.scene.random.choice(there).signal(signal.SIGKILL):
            return False
        self.scene.strikes[f"kill {self.kind}"] += 1
        return True


class KillReplica(Kill):
    name = kind = "replica"
    weight = 2


class KillShard(Kill):
    name = kind = "shard"
    weight = 4


class KillWriter(Kill):
    name = kind = "writer"
    weight = 4


class KillBroadcaster(Kill):
    name = kind = "broadcaster"
    weight = 2


class KillSupervisor(Kill):
    name = kind = "supervisor"


class KillController(Kill):
    name = kind = "controller"


class KillGuard(Kill):
    """The embedded servers die with it; the supervisor starts all of them again."""

    name = kind = "guard"
    outside = False


class KillValkey(Kill):
    """Whoever keeps it starts it again: the guard, or the suite."""

    name = "valkey"
    weight = 2

    async def strike(self) -> bool:
        outside = self.target.outside
        if outside is None:
            self.kind = "valkey"
            return await super().strike()
        outside.valkey.kill(signal.SIGKILL)
        self.scene.strikes["kill valkey"] += 1
        return True

    async def heal(self) -> None:
        if self.target.outside is not None:
            await asyncio.sleep(0.1)
            await self.target.outside.ready()


class KillPostgres(Kill):
    """Its other processes are ended by whoever starts it again."""

    name = "postgres"
    weight = 2
    number: ClassVar[signal.Signals] = signal.SIGKILL

    async def strike(self) -> bool:
        outside = self.target.outside
        if outside is not None:
            outside.postgres.kill(self.number)
        else:
            there = self.target.processes("postgres")
            if not there or not there[0].signal(self.number):
                return False
        self.scene.strikes[f"{'kill' if self.number == signal.SIGKILL else 'stop'} postgres"] += 1
        return True

    async def heal(self) -> None:
        if self.target.outside is not None:
            await asyncio.sleep(0.1)
            await self.target.outside.ready()


class StopPostgresAtOnce(KillPostgres):
    """``pg_ctl stop -m immediate`` while transactions are under way."""

    name = "postgres-immediate"
    number = signal.SIGQUIT


class KillBelow(Kill):
    """Ray itself: whoever runs the application has to start it again."""

    cold = True
    weight = 0.15

    async def heal(self) -> None:
        await start_again_if_ended(self)


class KillRaylet(KillBelow):
    name = kind = "raylet"


class KillGcs(KillBelow):
    name = kind = "gcs"


class KillRun(KillBelow):
    """The process that started Ray; where somebody keeps it, that starts all of it again."""

    name = kind = "run"

    async def strike(self) -> bool:
        there = self.target.processes("run")
        if not there or not there[-1].signal(signal.SIGKILL):
            return False
        self.scene.strikes["kill run"] += 1
        return True


class KillEverything(Fault):
    """Every process at once, as when somebody pulls the plug of all but the disk."""

    name = "everything"
    cold = True
    pairs = False
    weight = 0.15

    async def strike(self) -> bool:
        self.scene.strikes["kill everything"] += 1
        self.scene.strikes["kill process, with everything"] += self.target.kill_all()
        await asyncio.to_thread(self.target.service.process.wait, _ENDS_WITHIN_S)
        return True

    async def heal(self) -> None:
        await start_again_if_ended(self)


async def start_again_if_ended(fault: Fault) -> None:
    """As a service manager does it."""
    await asyncio.sleep(1)
    if not fault.target.is_running:
        fault.target.kill_all()
        await fault.target.start()


class Sleep(Fault):
    """SIGSTOP for ten seconds: it is replaced, and then it wakes up and knows nothing of it."""

    kind: ClassVar[str]
    pairs = False
    weight = 0.25
    seconds: ClassVar[float] = 10.0
    _victim: Process | None = None

    async def strike(self) -> bool:
        there = self.target.processes(self.kind)
        if not there:
            return False
        self._victim = self.scene.random.choice(there)
        self.scene.strikes[f"stop {self.kind}"] += 1
        return self._victim.signal(signal.SIGSTOP)

    async def hold(self) -> None:
        await asyncio.sleep(self.seconds)

    async def heal(self) -> None:
        if self._victim is not None:
            self._victim.signal(signal.SIGCONT)


class SleepShard(Sleep):
    name = "shard-sleeps"
    kind = "shard"


class SleepWriter(Sleep):
    name = "writer-sleeps"
    kind = "writer"


class SleepValkey(Sleep):
    """A log that hangs for some seconds and then answers everything."""

    name = "valkey-sleeps"
    kind = "valkey"
    outside = False
    seconds = 4.0


FAULTS: tuple[type[Fault], ...] = (
    KillReplica,
    KillShard,
    KillWriter,
    KillBroadcaster,
    KillSupervisor,
    KillController,
    KillGuard,
    KillValkey,
    KillPostgres,
    StopPostgresAtOnce,
    KillRaylet,
    KillGcs,
    KillRun,
    KillEverything,
    SleepShard,
    SleepWriter,
    SleepValkey,
)
