"""The tree of commands, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from att_client.cli import (
    backup,
    cycle,
    demo,
    doctor,
    events,
    health,
    log,
    logs,
    mcp,
    project,
    release,
    rollback,
    runtime,
    serve,
    token,
)
from att_client.cli.exits import EXIT_CODES_HELP
from att_client.cli.running import run_command

app = typer.Typer(
    name="att",
    help="Run agent apps, follow their logs and ship new versions; lose nothing.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
demo.register(app)
doctor.register(app)
serve.register(app)
backup.register(app)
token.register(app)
app.add_typer(project.commands, name="project", rich_help_panel="Apps")
app.add_typer(project.commands, name="projects", hidden=True)
runtime.register(app)
health.register(app)
logs.register(app)
app.add_typer(log.commands, name="log", rich_help_panel="Apps")
events.register(app)
app.add_typer(cycle.commands, name="cycle", rich_help_panel="Releases")
app.add_typer(cycle.commands, name="cycles", hidden=True)
app.add_typer(release.commands, name="release", rich_help_panel="Releases")
app.add_typer(release.commands, name="releases", hidden=True)
rollback.register(app)
app.add_typer(mcp.commands, name="mcp", rich_help_panel="Agents")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"att {metadata.version('att-control')}")
        raise typer.Exit


@app.callback()
def _att(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Runs `att` with `arguments` and returns its exit code."""
    return run_command(app, arguments, "att")
