"""
``ray-tracking run``: everything on this machine, in the foreground.

Two processes: :mod:`ray_tracking.cli.keeper` stays beside and starts the whole again when
it has been lost, :mod:`ray_tracking.cli.run_ray` is the whole, with Ray below it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ray_tracking.cli.keeper import keep_running


@click.command()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--data-dir", help="Where the data, and the embedded servers, live.")
@click.option("--preset", help="default, high_volume, memory_optimized or production.")
def command(file: Path | None, **given: Any) -> None:
    """Run everything on this machine until Ctrl-C.

    FILE is a Serve YAML such as serve_configs/local.yaml, or a mapping of settings.
    What is lost meanwhile, be it all of Ray, is started again.
    """
    report = keep_running()
    # Only in the child: the keeper must stay too small to be lost itself.
    from ray_tracking.cli.run_ray import run

    run(file, {name: value for name, value in given.items() if value is not None}, report)
