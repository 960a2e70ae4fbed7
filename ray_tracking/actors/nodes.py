"""The machines of a cluster as a process on each finds them: for ``doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import shutil
import socket
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_tracking.errors import Unavailable
from ray_tracking.pipeline.doctor import MachineFacts
from ray_tracking.settings import Settings, environment

_ANSWER_WITHIN_S = 30.0
_CONNECT_WITHIN_S = 3.0
#: How often a node is asked for the time.
_TIMES = 5


def probe_machine(data_dir: Path, name: str = "this machine") -> MachineFacts:
    """This machine, in this process."""
    found = environment.read(Settings.model_fields)
    return MachineFacts(
        name=name,
        python=platform.python_version(),
        ray=ray.__version__,
        package=importlib.metadata.version("ray-tracking"),
        open_files=_open_files(),
        somaxconn=_somaxconn(),
        data_dir=str(data_dir),
        data_dir_trouble=_trouble_of(data_dir),
        free_bytes=_free_bytes(data_dir),
        auth_mode=environment.ray_auth_mode(),
        settings={name: _digest(text) for name, text in found.values()},
    )


def probe_nodes(address: str, data_dir: Path) -> list[tuple[MachineFacts, float, float]]:
    """
    Every node of a cluster, with how far its clock is ahead of ours and how well that is known.

    Raises:
        Unavailable: If there is no such cluster, or a node of it does not answer.
    """
    check_listens(address)
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Unavailable(f"no Ray cluster at {address}: {reason}") from None
    try:
        return [_ask(node, data_dir) for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def check_listens(address: str) -> None:
    """
    Ask an address of Ray's whether anybody is there. Ray itself would try for minutes.

    Raises:
        Unavailable: If nobody is.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # a word such as auto, of which Ray knows at once whether there is any
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_WITHIN_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unavailable(f"no Ray cluster at {address}: {reason}") from None


def _ask(node: dict[str, Any], data_dir: Path) -> tuple[MachineFacts, float, float]:
    where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)
    name = f"node {node['NodeManagerAddress']} {node['NodeID'][:6]}"
    try:
        facts = ray.get(task(probe_machine).remote(data_dir, name), timeout=_ANSWER_WITHIN_S)
        # The way there and back must not be taken for a difference: the shortest says most.
        took_s, ahead_s = min(_ask_time(task(_now)) for _ in range(_TIMES))
    except ray.exceptions.RayError as error:
        raise Unavailable(f"{name} does not answer: {type(error).__name__}") from None
    return facts, ahead_s, took_s / 2


def _ask_time(task: Any) -> tuple[float, float]:
    """How long it took to ask, and how far the answer is ahead of the middle of that."""
    began_s = time.time()
    then_s: float = ray.get(task.remote(), timeout=_ANSWER_WITHIN_S)
    ended_s = time.time()
    return ended_s - began_s, then_s - (began_s + ended_s) / 2


def _now() -> float:
    return time.time()


def _open_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31


def _somaxconn() -> int | None:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return None


def _trouble_of(data_dir: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=_existing(data_dir)):
            return None
    except OSError as error:
        return f"{data_dir}: {error.strerror}"


def _free_bytes(data_dir: Path) -> int:
    try:
        return shutil.disk_usage(_existing(data_dir)).free
    except OSError:
        return 0


def _existing(path: Path) -> Path:
    """The directory, or the nearest above it that is there: where it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _digest(text: str) -> str:
    """Whether two nodes say the same, without saying what."""
    return blake2b(text.encode(), digest_size=8, person=b"doctor").hexdigest()
