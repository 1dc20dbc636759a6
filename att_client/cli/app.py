"""The tree of commands, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from att_client.cli import backup, demo, doctor, events, health, logs, project, runtime, serve
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output

app = typer.Typer(
    name="att",
    help="Run agent apps, follow their logs and lose nothing.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
demo.register(app)
doctor.register(app)
serve.register(app)
backup.register(app)
app.add_typer(project.commands, name="project", rich_help_panel="Apps")
app.add_typer(project.commands, name="projects", hidden=True)
runtime.register(app)
health.register(app)
logs.register(app)
events.register(app)


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
    try:
        return app(list(arguments), prog_name="att", standalone_mode=False) or ExitCode.DONE
    except typer.TyperException as error:
        return _usage(error, as_json="--json" in arguments)
    except typer.Abort:
        return ExitCode.FAILED


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    # No message: the command was called without arguments and its help was printed.
    message = error.format_message().strip()
    if message:
        context = getattr(error, "ctx", None)
        path = "att" if context is None else context.command_path
        message = f"{message.rstrip('.')}. Try `{path} --help`."
        Output(as_json=as_json).error(CommandError("USAGE", message, exit_code=ExitCode.USAGE))
    return ExitCode.USAGE
