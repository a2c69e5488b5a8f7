"""The `pytest-circuits` command: a module for each subcommand, imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = ("cache", "discover", "graph", "heads", "lint", "schema")


class Commands(click.Group):
    """A group whose subcommands are the modules of this folder, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, which need no import."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand."""
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f".{cmd_name}", __name__).command
        assert isinstance(found, click.Command)
        return found


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Test whether a checkpoint still solves a task by the circuit that a spec file names.

    The checks themselves run under pytest: `pytest specs/`. These commands look at a checkpoint's heads, at graphs of
    other tools, at spec files, and at what earlier runs kept. None gives a verdict on a checkpoint.
    """
