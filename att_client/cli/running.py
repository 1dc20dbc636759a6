"""Runs a command to its exit code."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import typer

from att_client.cli.exits import CommandError, ExitCode
from att_client.cli.output import Output, quiet_stdout

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def run_command(app: typer.Typer, arguments: Sequence[str], name: str) -> int:
    """Runs `app`, called by `name`, with `arguments` and returns its exit code."""
    try:
        return app(list(arguments), prog_name=name, standalone_mode=False) or ExitCode.DONE
    except typer.TyperException as error:
        return _usage(error, name, as_json="--json" in arguments)
    except typer.Abort:
        return ExitCode.FAILED
    except OSError as error:
        # What fails of a file has its name: this was what the command prints.
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        quiet_stdout()
        failure = CommandError("OUTPUT_FAILED", f"The output was cut off: {error.strerror}.")
        Output(as_json="--json" in arguments).error(failure)
        return ExitCode.FAILED


def _usage(error: typer.TyperException, name: str, *, as_json: bool) -> int:
    # No message: the command was called without arguments and its help was printed.
    message = error.format_message().strip()
    if message:
        context = getattr(error, "ctx", None)
        path = name if context is None else context.command_path
        message = f"{message.rstrip('.')}. Try `{path} --help`."
        Output(as_json=as_json).error(CommandError("USAGE", message, exit_code=ExitCode.USAGE))
    return ExitCode.USAGE
