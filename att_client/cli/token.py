"""`att init` and `att token`: the server's module does them, with no server in between."""

from __future__ import annotations

import typer

from att_client.cli.backup import PASSED_ON, become


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (init, token):
        app.command(rich_help_panel="Server", add_help_option=False, context_settings=PASSED_ON)(
            command
        )
    app.command("tokens", hidden=True, add_help_option=False, context_settings=PASSED_ON)(token)


def init(context: typer.Context) -> None:
    """Make a state directory's first tokens; `att init --help` lists the options."""
    become("init", context.args)


def token(context: typer.Context) -> None:
    """Make, list, replace and revoke tokens; `att token --help` lists the commands."""
    become("token", context.args)
