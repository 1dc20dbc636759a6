"""`att backup` and `att restore`: the server's module does them, with no server in between."""

from __future__ import annotations

import os
import sys

import typer

from att_client.cli.output import Output
from att_client.cli.serve import server_command
from att_client.cli.session import reported

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The context of a command whose words are the server's module's to read."""


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (backup, restore):
        app.command(rich_help_panel="Server", add_help_option=False, context_settings=PASSED_ON)(
            command
        )


def backup(context: typer.Context) -> None:
    """Back up a server's state, also while it runs; `att backup --help` lists the options."""
    become("backup", context.args)


def restore(context: typer.Context) -> None:
    """Make a state directory from a backup; `att restore --help` lists the options."""
    become("restore", context.args)


def become(command: str, arguments: list[str]) -> None:
    """Goes on as the server's module; does not return."""
    with reported(Output(as_json="--json" in arguments)):
        words = server_command()
        sys.stdout.flush()
        os.execv(words[0], [*words, command, *arguments])
