"""
The command line, ``ray-tracking``.

Each command is a module of its own, imported only when it is called, so that help
and shell completion answer at once. What goes wrong on purpose is one line on
stderr and exit code 2; Ctrl-C is exit code 130. A traceback is always a bug.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import click

from ray_tracking.errors import TrackingError


class _Entry(NamedTuple):
    target: str
    help: str


#: To add a command: its module and function, and what the list of commands says.
COMMANDS: dict[str, _Entry] = {
    "dead-letters": _Entry(
        "ray_tracking.cli.dead_letters:command", "Look at refused events, and send them again."
    ),
    "doctor": _Entry(
        "ray_tracking.cli.doctor:command", "Check machine, cluster and servers before a start."
    ),
    "keys": _Entry("ray_tracking.cli.keys:command", "Make API keys for callers."),
    "limits": _Entry("ray_tracking.cli.limits:command", "How much one campaign may send."),
    "log": _Entry("ray_tracking.cli.log:command", "Look at the event log's gaps and spools."),
    "migrate": _Entry("ray_tracking.cli.migrate:command", "Bring the database schema up to date."),
    "replay": _Entry("ray_tracking.cli.replay:command", "Count campaigns anew from their rows."),
    "retention": _Entry("ray_tracking.cli.retention:command", "Drop days of raw events."),
    "status": _Entry("ray_tracking.cli.status:command", "Ask a running service how it is."),
    "tokens": _Entry("ray_tracking.cli.tokens:command", "Mint and read tracking tokens."),
    "verify": _Entry(
        "ray_tracking.cli.verify:command", "Compare the figures of campaigns with their rows."
    ),
    "run": _Entry("ray_tracking.cli.run:command", "Run everything on this machine."),
    "check-config": _Entry(
        "ray_tracking.cli.check_config:command", "Show the effective settings, or what is wrong."
    ),
    "simulate": _Entry(
        "ray_tracking.cli.simulate:command", "Play believable campaigns against a service."
    ),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].target.partition(":")
        command = getattr(import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click asks every command for its help, which would import them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrackingError as error:
            # An error from an actor carries its traceback; the original is its cause.
            cause = getattr(error, "cause", error)
            click.echo(f"ray-tracking: {' '.join(str(cause).split())}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ray-tracking", prog_name="ray-tracking")
def main() -> None:
    """Take every event of an email campaign, store each exactly once, show it live."""
