"""The embedded servers come up, keep the data through every crash, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis import asyncio as redis

from ray_tracking.errors import StartError
from ray_tracking.stores.embedded import EmbeddedServers, ServerUrls
from ray_tracking.stores.embedded.paths import control_socket

pytestmark = [pytest.mark.servers]

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

#: What an ordinary user runs: starts, says how it went, stops when its input ends.
ORDINARY = """
import asyncio, json, sys
from pathlib import Path
from ray_tracking.errors import StartError
from ray_tracking.stores.embedded import EmbeddedServers

async def main():
    try:
        servers = await EmbeddedServers.start(Path(sys.argv[1]), postgres=True, valkey=True)
    except StartError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps(vars(servers.urls)), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop()

asyncio.run(main())
"""


def processes(data_dir: Path) -> list[int]:
    """Everything alive that was started for this directory or works in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                places = (entry / "cmdline").read_bytes(), os.fsencode((entry / "cwd").readlink())
                if any(os.fsencode(data_dir) in place for place in places):
                    found.append(int(entry.name))
    return found


def environment(pid: int) -> bytes:
    """The environment that a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def oom_score(new: str | None = None, pid: int | None = None) -> int:
    """How readily the kernel ends a process when memory is short; sets it first, if asked."""
    file = Path(f"/proc/{pid or os.getpid()}/oom_score_adj")
    if new is not None:
        file.write_text(new)
    return int(file.read_text())


def sockets(data_dir: Path) -> list[Path]:
    """The sockets in a data directory."""
    return [path for path in data_dir.rglob("*") if path.is_socket()]


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that the kernel does in its own time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.02)


async def until_nothing_is_left(data_dir: Path) -> None:
    """Wait until no process and no socket of the data directory is there."""
    await until(lambda: not processes(data_dir))
    assert sockets(data_dir) == []


@contextlib.contextmanager
def cleaned(data_dir: Path) -> Iterator[Path]:
    """A failed test leaves no server behind."""
    try:
        yield data_dir
    finally:
        for pid in processes(data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that is not there yet."""
    with cleaned(tmp_path / "data") as path:
        yield path


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can get to."""
    path = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    path.chmod(0o755)
    with cleaned(path):
        yield path
    shutil.rmtree(path)


@contextlib.asynccontextmanager
async def clients(urls: ServerUrls) -> AsyncIterator[tuple[asyncpg.Connection, redis.Redis]]:
    """A connection to each server."""
    assert urls.database_url is not None
    assert urls.redis_url is not None
    connection = await asyncpg.connect(urls.database_url)
    try:
        async with redis.from_url(urls.redis_url, decode_responses=True) as valkey:
            yield connection, valkey
    finally:
        await connection.close()


async def write(urls: ServerUrls, text: str) -> None:
    """Put a text into both servers."""
    async with clients(urls) as (connection, valkey):
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        await connection.execute("INSERT INTO kept VALUES ($1)", text)
        await valkey.xadd("kept", {"text": text})


async def read(urls: ServerUrls) -> list[str]:
    """What both servers have; they have to agree."""
    async with clients(urls) as (connection, valkey):
        rows = [row["text"] for row in await connection.fetch("SELECT text FROM kept")]
        assert [fields["text"] for _, fields in await valkey.xrange("kept")] == rows
        return rows


async def read_when_back(urls: ServerUrls) -> list[str]:
    """The same, as soon as a server that died serves again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await read(urls)
            except (OSError, asyncpg.PostgresError, redis.RedisError):
                await asyncio.sleep(0.02)


async def start(data_dir: Path, *, grace_s: float = 5.0, namespace: bool = True) -> EmbeddedServers:
    """Both servers."""
    return await EmbeddedServers.start(
        data_dir, postgres=True, valkey=True, grace_s=grace_s, namespace=namespace
    )


async def test_both_serve_and_leave_nothing_behind(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_ID", "01")
    servers = await start(data_dir)
    await write(servers.urls, "one")
    assert await read(servers.urls) == ["one"]
    assert not any(b"RAY_" in environment(pid) for pid in servers.pids.values())
    assert os.getsid(servers.pids["guard"]) != os.getsid(0)

    await servers.stop()
    assert sockets(data_dir) == []
    await until_nothing_is_left(data_dir)
    await servers.stop()


async def test_servers_are_not_the_first_to_go_when_a_ray_worker_starts_them(
    data_dir: Path,
) -> None:
    own = oom_score()
    oom_score("500")
    try:
        servers = await EmbeddedServers.start(data_dir, postgres=False, valkey=True)
    finally:
        oom_score(str(own))
    assert oom_score(pid=servers.pids["valkey"]) == 0
    await servers.stop()


async def test_nothing_is_reachable_by_others_or_over_a_network(data_dir: Path) -> None:
    servers = await start(data_dir)
    async with clients(servers.urls) as (connection, valkey):
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        settings = await valkey.config_get("port", "appendfsync", "maxmemory-policy")
    assert settings == {"port": "0", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    for socket in sockets(data_dir):
        assert socket.stat().st_mode & 0o077 == 0
        assert socket.parent.stat().st_mode & 0o077 == 0
    await servers.stop()


async def test_data_survives_a_stop(data_dir: Path) -> None:
    for text in ("one", "two"):
        servers = await start(data_dir)
        await write(servers.urls, text)
        await servers.stop()
    servers = await start(data_dir)
    assert await read(servers.urls) == ["one", "two"]
    await servers.stop()


@pytest.mark.parametrize("victims", [["guard"], ["guard", "postgres", "valkey"]])
async def test_data_survives_when_the_guard_is_killed(data_dir: Path, victims: list[str]) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    for victim in victims:
        os.kill(servers.pids[victim], signal.SIGKILL)
    await servers.closed()

    again = await start(data_dir)
    assert await read(again.urls) == ["one"]
    assert not set(again.pids.values()) & set(servers.pids.values())
    await again.stop()
    await until_nothing_is_left(data_dir)


async def test_servers_end_when_the_guard_is_killed(data_dir: Path) -> None:
    servers = await start(data_dir)
    os.kill(servers.pids["guard"], signal.SIGKILL)
    await until(lambda: not processes(data_dir))
    await servers.closed()


async def test_a_server_that_does_not_end_with_the_guard_is_ended_by_the_next(
    data_dir: Path,
) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    for victim in ("postgres", "valkey"):
        os.kill(servers.pids[victim], signal.SIGSTOP)
    os.kill(servers.pids["guard"], signal.SIGKILL)

    again = await start(data_dir)
    assert await read(again.urls) == ["one"]
    assert not set(processes(data_dir)) & set(servers.pids.values())
    await again.stop()
    await until_nothing_is_left(data_dir)


@pytest.mark.parametrize("victim", ["postgres", "valkey"])
async def test_a_server_that_dies_is_started_again(data_dir: Path, victim: str) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    os.kill(servers.pids[victim], signal.SIGKILL)
    assert await read_when_back(servers.urls) == ["one"]

    # Whoever joins now is told of the new process.
    joined = await start(data_dir)
    changed = {name for name, pid in joined.pids.items() if servers.pids[name] != pid}
    assert changed == {victim}
    await joined.release()
    await servers.stop()
    await until_nothing_is_left(data_dir)


async def test_servers_end_when_the_last_lease_is_gone(data_dir: Path) -> None:
    first = await start(data_dir, grace_s=0.3)
    second = await start(data_dir, grace_s=0.3)
    assert first.pids == second.pids
    assert first.urls == second.urls
    await write(first.urls, "one")

    await first.release()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.closed(), 0.5)
    assert await read(second.urls) == ["one"]
    await second.release()
    await until_nothing_is_left(data_dir)


async def test_starters_at_the_same_time_share_one_guard(data_dir: Path) -> None:
    leases = await asyncio.gather(*(start(data_dir) for _ in range(4)))
    assert len({lease.pids["guard"] for lease in leases}) == 1
    await leases[0].stop()
    await asyncio.gather(*(lease.closed() for lease in leases))


async def test_a_start_during_a_stop_waits_for_its_end(data_dir: Path) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    stopping = asyncio.create_task(servers.stop())
    await asyncio.sleep(0)
    again = await start(data_dir)
    assert await read(again.urls) == ["one"]
    assert stopping.done()
    await again.stop()


async def test_two_directories_do_not_meet(tmp_path: Path) -> None:
    with cleaned(tmp_path):
        one, two = await asyncio.gather(start(tmp_path / "one"), start(tmp_path / "two"))
        await write(one.urls, "one")
        await write(two.urls, "two")
        await one.stop()
        assert await read(two.urls) == ["two"]
        await two.stop()


async def test_only_what_is_asked_for_runs(data_dir: Path) -> None:
    servers = await EmbeddedServers.start(data_dir, postgres=False, valkey=True)
    assert servers.urls.database_url is None
    assert set(servers.pids) == {"guard", "valkey"}

    other = await EmbeddedServers.start(data_dir, postgres=True, valkey=False)
    await servers.closed()
    assert set(other.pids) == {"guard", "postgres"}
    await other.stop()


@pytest.mark.parametrize(("buffers_mib", "shown"), [(None, "256MB"), (64, "64MB")])
async def test_postgres_holds_as_many_pages_as_it_is_told(
    data_dir: Path, buffers_mib: int | None, shown: str
) -> None:
    servers = await EmbeddedServers.start(
        data_dir, postgres=True, valkey=False, buffers_mib=buffers_mib
    )
    connection = await asyncpg.connect(servers.urls.database_url)
    assert await connection.fetchval("SHOW shared_buffers") == shown
    await connection.close()
    await servers.stop()


async def test_valkey_allocates_with_jemalloc(data_dir: Path) -> None:
    """With libc's malloc it grew under a steady load."""
    servers = await EmbeddedServers.start(data_dir, postgres=False, valkey=True)
    mapped = {Path(part.path).name for part in psutil.Process(servers.pids["valkey"]).memory_maps()}
    await servers.stop()

    assert "libjemalloc.so" in mapped


async def test_signals_to_the_guard(data_dir: Path) -> None:
    servers = await start(data_dir)
    os.kill(servers.pids["guard"], signal.SIGINT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(servers.closed(), 0.2)
    os.kill(servers.pids["guard"], signal.SIGTERM)
    await servers.closed()
    await until_nothing_is_left(data_dir)


def spoil(data_dir: Path, pid_file: str) -> None:
    """Leave what crashes leave."""
    pid_file = pid_file.format(data=data_dir / "postgres/data")
    (data_dir / "postgres/data/postmaster.pid").write_text(pid_file)
    (data_dir / "postgres/.s.PGSQL.5432.lock").write_text(pid_file)
    (data_dir / "postgres/data.new/base").mkdir(parents=True)
    for name in ("guard.sock", "postgres/.s.PGSQL.5432", "valkey/valkey.sock"):
        (data_dir / name).write_text("")
    (data_dir / "valkey/valkey.conf").write_text("nonsense")
    (data_dir / "guard.lock").write_text("99999999")


@pytest.mark.parametrize(
    "pid_file",
    ["", "garbage\n\0", f"{os.getpid()}\n{{data}}\n1\n5432\n\n\n1 1\nready   \n"],
    ids=["empty", "garbage", "a stranger's"],
)
async def test_stale_files_are_survived(data_dir: Path, pid_file: str) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    await servers.stop()
    spoil(data_dir, pid_file)

    servers = await start(data_dir)
    assert await read(servers.urls) == ["one"]
    await servers.stop()
    await until_nothing_is_left(data_dir)


async def test_an_initdb_that_was_cut_off_starts_anew(data_dir: Path) -> None:
    (data_dir / "postgres/data.new/base").mkdir(parents=True)
    (data_dir / "postgres/data.new/PG_VERSION").write_text("18\n")
    servers = await start(data_dir)
    await write(servers.urls, "one")
    assert not (data_dir / "postgres/data.new").exists()
    await servers.stop()


async def test_a_long_and_odd_path(tmp_path: Path) -> None:
    data_dir = tmp_path / ("a, b'%41#é\"\\" + "x" * 100)
    with cleaned(data_dir):
        servers = await start(data_dir)
        short = control_socket(data_dir).parent
        assert short.stat().st_mode & 0o777 == 0o700
        await write(servers.urls, "one")
        assert await read(servers.urls) == ["one"]
        await servers.stop()
    assert not short.exists()


@as_root
async def test_root_without_user_namespaces(open_dir: Path) -> None:
    data_dir = open_dir / "data"
    servers = await start(data_dir, namespace=False)
    await write(servers.urls, "one")
    assert (data_dir / "postgres/data").stat().st_uid != 0
    await servers.stop()
    # The database keeps its owner where namespaces are allowed again.
    servers = await start(data_dir)
    assert await read(servers.urls) == ["one"]
    os.kill(servers.pids["guard"], signal.SIGKILL)
    await until(lambda: not processes(data_dir))
    await servers.closed()


@as_root
async def test_root_cannot_go_on_where_namespaces_have_gone(data_dir: Path) -> None:
    servers = await start(data_dir)
    await servers.stop()
    with pytest.raises(StartError, match=r"belongs to root.* DATABASE_URL"):
        await start(data_dir, namespace=False)


@as_root
@pytest.mark.parametrize("namespace", [True, False])
async def test_a_closed_directory_above_is_named(open_dir: Path, namespace: bool) -> None:
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 12345, 12345)
    with pytest.raises(StartError, match=f"^{closed} is closed .* DATABASE_URL$"):
        await start(closed / "data", namespace=namespace)


def python_for(uid: int) -> str:
    """An interpreter that this user may run."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError):
            done = subprocess.run([python, "-c", ""], user=uid, capture_output=True, check=False)
            if done.returncode == 0:
                return python
    pytest.skip(f"no Python {sys.version_info.minor} that user {uid} may run")


async def start_as(uid: int, data_dir: Path) -> asyncio.subprocess.Process:
    """Start the servers as another user."""
    libraries = sysconfig.get_path("purelib")
    return await asyncio.create_subprocess_exec(
        *(python_for(uid), "-c", ORDINARY, str(data_dir)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PYTHONPATH": f"{ROOT}:{libraries}", "PYTHONDONTWRITEBYTECODE": "1"},
        user=uid,
        group=uid,
        extra_groups=[],
    )


@as_root
@pytest.mark.parametrize("uid", [65534, 54321], ids=["nobody", "no name"])
async def test_an_ordinary_user(open_dir: Path, uid: int) -> None:
    os.chown(open_dir, uid, uid)
    data_dir = open_dir / "data"
    process = await start_as(uid, data_dir)
    assert process.stdout is not None
    said = json.loads(await process.stdout.readline())
    assert "error" not in said
    urls = ServerUrls(**said)
    await write(urls, "one")
    assert await read(urls) == ["one"]
    assert (data_dir / "postgres/data").stat().st_uid == uid
    await process.communicate(b"")
    assert process.returncode == 0
    await until_nothing_is_left(open_dir)


@as_root
async def test_an_unwritable_directory_is_named(open_dir: Path) -> None:
    process = await start_as(65534, open_dir / "data")
    out, _ = await process.communicate()
    error = json.loads(out)["error"]
    assert str(open_dir / "data") in error
    assert "Permission denied" in error
    assert "\n" not in error


async def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file/data"):
        with pytest.raises(StartError, match=str(data_dir)):
            await start(data_dir)


async def test_a_foreign_directory_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres/data").mkdir(parents=True)
    (data_dir / "postgres/data/mine").write_text("")
    with pytest.raises(StartError, match="no Postgres database"):
        await start(data_dir)
    assert (data_dir / "postgres/data/mine").exists()
    await until_nothing_is_left(data_dir)


async def test_an_error_carries_the_end_of_the_log(data_dir: Path) -> None:
    servers = await start(data_dir)
    await write(servers.urls, "one")
    await servers.stop()
    manifest = data_dir / "valkey/appendonlydir/appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    with pytest.raises(StartError, match=r"valkey does not start.*AOF manifest") as caught:
        await start(data_dir)
    assert "\n" not in str(caught.value)
    await until_nothing_is_left(data_dir)


async def test_a_guard_of_another_release_is_named(data_dir: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"version": 99, "pid": 4711, "servers": []}\n')
        await writer.drain()
        writer.close()

    os.mkdir(data_dir)
    async with await asyncio.start_unix_server(greet, control_socket(data_dir)):
        with pytest.raises(StartError, match=r"another release.*4711"):
            await start(data_dir)
