"""
The whole of ``ray-tracking run``: the child that its keeper starts.

Starts a Ray of its own, deploys the application on it, says where everything is, and
ends both cleanly on SIGINT or SIGTERM. What can be known to be wrong is said before
anything is started.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ray_tracking import __version__
from ray_tracking.cli.keeper import Report
from ray_tracking.cli.named import check_named
from ray_tracking.cli.serve_file import read_config
from ray_tracking.errors import StartError
from ray_tracking.settings import Settings
from ray_tracking.settings.environment import set_ray_defaults
from ray_tracking.settings.masking import mask_url

APPLICATION = "tracking"
#: Serve says nothing of what goes well; our own lines are few and say what matters.
_QUIET = {"enable_access_log": False, "log_level": "WARNING", "encoding": "JSON"}


def run(file: Path | None, options: Mapping[str, Any], report: Report) -> None:
    """
    Run everything until a signal asks for the end.

    Args:
        file: A Serve YAML or a mapping of settings.
        options: Settings that win over the file.
        report: Hears how far it is.

    Raises:
        TrackingError: It cannot start, or not with these settings.
    """
    with _signals() as stop:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        settings = Settings.load({**(read_config(file).args if file else {}), **options})
        # First: of one that runs with the same settings, the port would be found to be taken.
        report.hold(settings.data_dir)
        check_before_start(settings)
        _run(settings, stop, report)


def check_before_start(settings: Settings) -> None:
    """
    Say what is wrong before anything is started.

    Raises:
        SettingsError: A validation rule cannot be imported.
        StartError: The port is taken, or a file or server that was named does not do.
    """
    from ray_tracking.stores import database, log_setup
    from ray_tracking.stores.log import EventLog

    check_named(settings)
    _check_port(settings.host, settings.port)

    async def check_servers() -> None:
        if url := settings.redis_connection_url:
            event_log = EventLog(url, settings.redis_prefix)
            refuse = settings.redis_safety == "refuse"
            try:
                await log_setup.check_server(event_log.redis, refuse=refuse)
            finally:
                await event_log.close()
        if url := settings.database_connection_url:
            await database.prepare(url, settings.database_schema, partitions=settings.partitions)

    asyncio.run(check_servers())


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"port {port} on {host} cannot be had ({error.strerror}); "
                "set TRACKING_PORT to another, or stop what uses it"
            ) from None


class _Stop(BaseException):
    """A signal asked us to stop while something was starting."""


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """
    SIGINT and SIGTERM set the event; before it is waited for, they also break off.

    A second one is ignored: what stops is on its way to a clean end.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            raise _Stop

    _install(on_signal)
    with suppress(_Stop):
        yield stop


def _install(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _run(settings: Settings, stop: threading.Event, report: Report) -> None:
    started = time.monotonic()
    # Ray prints here what the actors say; into a file too, a line is to be there when it is said.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    click.echo(f"ray-tracking {__version__}: starting", err=True)
    set_ray_defaults()
    import ray
    from ray import serve

    from ray_tracking.app import build

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    handlers = signal.getsignal(signal.SIGINT)
    _let_the_agent_choose_its_port(ray)
    context = ray.init(
        address="local",
        namespace="ray_tracking",
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        logging_level="WARNING",
        log_to_driver=True,
    )
    session_dir = Path(context.address_info["session_dir"])
    _install(handlers)  # Ray has put its own in place
    report.ray_started(session_dir)
    try:
        serve.start(
            proxy_location="HeadOnly" if settings.listener == "serve" else "Disabled",
            http_options={"host": settings.host, "port": settings.port},
            logging_config=_QUIET,
        )
        _deploy(serve, build(settings))
        supervisor = serve.get_deployment_handle("Supervisor", APPLICATION)
        database_url = supervisor.runtime.remote().result().database_url
        report.ready()
        _say_where(settings, context, database_url, time.monotonic() - started)
        stop.wait()
    finally:
        stop.set()
        report.stopping()
        click.echo("ray-tracking: stopping", err=True)
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(session_dir, ignore_errors=True)
        click.echo("ray-tracking: stopped", err=True)


def _let_the_agent_choose_its_port(ray: Any) -> None:
    """
    Jobs can be submitted also where another Ray runs on this machine.

    The agent that takes them listens on one fixed port, and without it, it only logs that it
    has none; ``ray start`` has an option for it, ``ray.init`` has not.
    """
    parameter = ray._private.parameter
    parameter.RayParams = partial(parameter.RayParams, dashboard_agent_listen_port=0)


def _deploy(serve: Any, application: Any) -> None:
    try:
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=_QUIET)
    except RuntimeError as error:
        raise StartError(_reason(serve, str(error))) from None


def _reason(serve: Any, fallback: str) -> str:
    """Our own line out of the traceback that Serve reports."""
    text = fallback
    try:
        status = serve.status().applications[APPLICATION]
        text = "\n".join(
            [status.message, *(part.message for part in status.deployments.values()), fallback]
        )
    except (KeyError, RuntimeError):
        pass
    ours = re.findall(r"ray_tracking\.errors\.\w+: (.+)", text)
    return ours[-1] if ours else text.strip().splitlines()[-1]


def _say_where(settings: Settings, context: Any, database_url: str, took_s: float) -> None:
    base = settings.public_base_url
    lines: Mapping[str, str] = {
        "Dashboard": f"{base}/dashboard",
        "API": base,
        "API description": f"{base}/openapi.json",
        "Health": f"{base}/health/tracking",
        "Ray dashboard": f"http://{context.dashboard_url}" if context.dashboard_url else "none",
        "Ray": context.address_info["address"],
        "Data directory": str(settings.data_dir),
        "Postgres": f"embedded; psql '{database_url}'"
        if settings.embedded_postgres
        else mask_url(database_url),
        "Event log": "embedded Valkey"
        if settings.embedded_valkey
        else mask_url(settings.redis_connection_url or ""),
    }
    click.echo(f"\nray-tracking {__version__} is ready after {took_s:.1f} s.\n", err=True)
    for name, value in lines.items():
        click.echo(f"  {name:<16} {value}", err=True)
    click.echo("\nCtrl-C stops it.\n", err=True)
    sys.stderr.flush()
