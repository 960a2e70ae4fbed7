"""The keeper of ``ray-tracking run``, with a child that only looks like a Ray driver."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ray_tracking.cli.in_use import LOCK_NAME, lock
from ray_tracking.errors import StartError
from tests.support.waiting import eventually

#: Started anew for each life. It leaves an orphan, as Ray leaves its workers.
CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from ray_tracking.cli.keeper import keep_running
from ray_tracking.errors import StartError

report = keep_running()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pthread_sigmask(signal.SIG_SETMASK, [])
home = Path(sys.argv[1])
try:
    report.hold(home / "data")
except StartError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
with (home / "lives").open("a") as lives:
    lives.write(f"{os.getpid()}\\n")
if (home / "fail").exists():
    sys.exit(2)
session = home / f"session-{os.getpid()}"
session.mkdir()
ray = [subprocess.Popen([home / name, "1000"]) for name in ("gcs_server", "raylet")]
subprocess.run(["sh", "-c", "sleep 1000 &"])
wait = "import signal; signal.pause()"
guard = [sys.executable, "-c", wait, "ray_tracking.stores.embedded.guard"]
if not (home / "guard").exists():
    (home / "guard").write_text(str(subprocess.Popen(guard).pid))
report.ray_started(session)
if (home / "fail-late").exists():
    if "says" in (home / "fail-late").read_text():
        report.stopping()
    for process in ray:
        process.kill()
    if "killed" in (home / "fail-late").read_text():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2)
    print("its reason", file=sys.stderr)
    sys.exit(2)
report.ready()
(session / "ready").touch()
signal.pause()
"""


class Kept:
    """A keeper with its child, in a directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("gcs_server", "raylet"):
            (home / name).symlink_to(str(shutil.which("sleep")))
        with (home / "said").open("w") as said:
            self.keeper = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(home)], stderr=said, start_new_session=True
            )

    @property
    def lives(self) -> list[int]:
        """The process of each child that has been started."""
        file = self.home / "lives"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    @property
    def sessions(self) -> list[str]:
        return [path.name for path in self.home.glob("session-*")]

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.keeper.pid).children(recursive=True)

    def names(self) -> list[str]:
        names = []
        for process in self.below():
            with suppress(psutil.NoSuchProcess):
                names.append(process.name())
        return names

    def pid_of(self, name: str) -> int:
        return next(process.pid for process in self.below() if process.name() == name)

    async def wait_for_life(self, number: int) -> None:
        """Return when the n-th child, and all that belongs to it, is there."""

        def there() -> bool:
            if len(self.lives) != number:
                return False
            session = f"session-{self.lives[-1]}"
            return self.sessions == [session] and (self.home / session / "ready").exists()

        await eventually(there)
        await eventually(lambda: self.names().count("sleep") == 1)

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it said."""
        code = await asyncio.to_thread(self.keeper.wait, 20)
        return code, (self.home / "said").read_text()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    try:
        yield made
    finally:
        if made.keeper.poll() is None:
            left = made.below()
            made.keeper.kill()
            for process in left:
                process.kill()
        made.keeper.wait()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


@pytest.mark.parametrize("lost", ["gcs_server", "raylet", "driver"])
async def test_what_is_lost_is_started_again_from_scratch(kept: Kept, lost: str) -> None:
    """Of the former life only the embedded servers stay."""
    await kept.wait_for_life(1)
    before = {process.pid for process in kept.below()}
    guard = int((kept.home / "guard").read_text())

    os.kill(kept.lives[0] if lost == "driver" else kept.pid_of(lost), signal.SIGKILL)

    await kept.wait_for_life(2)
    assert before & {process.pid for process in kept.below()} == {guard}
    kept.keeper.terminate()
    code, said = await kept.end()
    assert code == 0
    assert said.count("starting everything again") == len(said.splitlines()) == 1
    assert gone(guard)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_everything(kept: Kept, number: int) -> None:
    """Also when a terminal sends it to the whole group."""
    await kept.wait_for_life(1)
    before = kept.below()

    os.killpg(kept.keeper.pid, number)

    assert await kept.end() == (0, "")
    assert not any(process.is_running() for process in before)
    assert kept.sessions == []


async def test_a_first_start_that_fails_is_not_repeated(tmp_path: Path) -> None:
    """The settings are wrong, and stay so."""
    (tmp_path / "fail").touch()
    kept = Kept(tmp_path)
    assert await kept.end() == (2, "")
    assert len(kept.lives) == 1


async def test_a_first_start_that_fails_ends_its_ray_itself_and_says_why(tmp_path: Path) -> None:
    """That its Ray has gone by then is no loss."""
    (tmp_path / "fail-late").write_text("says so")
    kept = Kept(tmp_path)
    assert await kept.end() == (2, "its reason\n")
    assert len(kept.lives) == 1


async def test_a_first_start_that_is_killed_while_it_ends_is_not_repeated(tmp_path: Path) -> None:
    """It had failed before, whatever the reason that it could not say."""
    (tmp_path / "fail-late").write_text("says so, is killed")
    kept = Kept(tmp_path)
    code, said = await kept.end()
    assert code == 1
    assert (
        said == "ray-tracking: the Ray driver was killed by SIGKILL; the first start has failed\n"
    )
    assert len(kept.lives) == 1
    assert kept.sessions == []


async def test_a_first_start_that_loses_its_ray_is_repeated(tmp_path: Path) -> None:
    """Its service may have taken events already."""
    (tmp_path / "fail-late").touch()
    kept = Kept(tmp_path)
    try:
        await eventually(lambda: len(kept.lives) == 1)
        await eventually(lambda: "again" in (tmp_path / "said").read_text())
    finally:
        kept.keeper.terminate()
    code, said = await kept.end()
    assert code == 0
    assert re.match(r"ray-tracking: Ray's (gcs_server|raylet) has gone; starting everything", said)


async def test_a_later_start_that_fails_is_repeated_after_a_pause(kept: Kept) -> None:
    """It worked before, so it will again; and a signal ends the pause too."""
    await kept.wait_for_life(1)
    (kept.home / "fail").touch()
    os.kill(kept.lives[0], signal.SIGKILL)
    await eventually(lambda: len(kept.lives) >= 3)

    kept.keeper.terminate()

    code, said = await kept.end()
    assert code == 0
    first, second, *_ = [line.partition("; ")[2] for line in said.splitlines()]
    assert (first, second) == ("starting everything again", "starting everything again in 1 s")


async def test_a_killed_keeper_takes_the_child_with_it(kept: Kept) -> None:
    """Nobody would notice a second loss; the child ends as cleanly as it can."""
    await kept.wait_for_life(1)
    left = kept.below()

    kept.keeper.kill()

    await eventually(lambda: gone(kept.lives[0]))
    for process in left:
        if process.is_running():
            process.kill()


async def test_a_second_one_for_the_same_data_directory_is_refused(kept: Kept) -> None:
    """Also when the first has lost its Ray meanwhile: it is told whom to stop."""
    await kept.wait_for_life(1)
    os.kill(kept.lives[0], signal.SIGKILL)
    await kept.wait_for_life(2)

    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CHILD, str(kept.home)],
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert (second.returncode, second.stderr) == (
        2,
        f"data_dir: {kept.home}/data is in use by ray-tracking run (process {kept.keeper.pid}); "
        "stop it, or choose another TRACKING_DATA_DIR\n",
    )
    assert len(kept.lives) == 2


@pytest.mark.parametrize("life", [1, 2])
async def test_a_killed_keeper_leaves_the_data_directory_to_the_next(kept: Kept, life: int) -> None:
    """Whatever lives on below it, be it the child itself."""
    await kept.wait_for_life(1)
    if life == 2:
        os.kill(kept.lives[0], signal.SIGKILL)
        await kept.wait_for_life(2)
    with pytest.raises(StartError, match="in use"):
        lock(kept.home / "data", os.getpid(), None)
    left = kept.below()
    os.kill(kept.lives[-1], signal.SIGSTOP)

    kept.keeper.kill()
    kept.keeper.wait()

    try:
        file = lock(kept.home / "data", os.getpid(), None)
    finally:
        for process in left:
            process.kill()
    assert file is not None
    os.close(file)
    assert (kept.home / "data" / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    """One line, and not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"^data_dir: .*/file/data cannot be used: Not a dir"):
        lock(tmp_path / "file" / "data", os.getpid(), None)
