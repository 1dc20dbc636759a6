"""One run of a command: its connection, its options, its end."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import CommandError, ExitCode, from_call, usage_error
from att_client.cli.output import Output, printable, quiet_stdout

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="The server, as unix:/path/att.sock, or over TLS as HOST:PORT. Default: ATT_TARGET, "
        "else the socket in the state directory.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def complete_project(incomplete: str) -> list[str]:
    """The ids of projects that begin with `incomplete`; none without a server."""

    async def ids() -> list[str]:
        async with asyncio.timeout(1), att_client.connect() as att:
            return [project.project_id async for project in att.projects.list()]

    try:
        return [name for name in asyncio.run(ids()) if name.startswith(incomplete)]
    except (att_client.AttError, TimeoutError):
        return []


ProjectId = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT",
        help="The project's id.",
        autocompletion=complete_project,
        show_default=False,
    ),
]


def run(
    call: Callable[[att_client.Client], Awaitable[None]], *, target: str | None, output: Output
) -> None:
    """Runs `call` on a connection to `target`; a failure is printed and ends the command."""

    async def connected() -> None:
        async with att_client.connect(target) as att:
            await call(att)

    with reported(output), warnings_noted(output):
        asyncio.run(connected())


@contextmanager
def reported(output: Output) -> Iterator[None]:
    """Prints what fails inside and ends the command with its exit code.

    A reader of our output that went away is no failure: the command ends
    quietly, as `head` expects.
    """
    try:
        try:
            yield
            sys.stdout.flush()
        except att_client.AttError as error:
            raise from_call(error) from error
        except UnicodeEncodeError as error:
            # Bytes of an argument or of the current directory that no request can carry.
            raise usage_error(f"{error.object!r} is not UTF-8. Name it in UTF-8.") from error
    except CommandError as error:
        output.error(error)
        raise typer.Exit(error.exit_code) from error
    except BrokenPipeError as error:
        quiet_stdout()
        raise typer.Exit(ExitCode.DONE) from error


@contextmanager
def warnings_noted(output: Output) -> Iterator[None]:
    """Passes on what the client warns of, such as an outage that it waits for.

    People get it as notes; with --json it is left out.
    """
    logger = logging.getLogger("att_client")
    handler = logging.NullHandler() if output.as_json else _NoteHandler(output)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _NoteHandler(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(printable(record.getMessage()))


_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}


def parse_duration(text: str) -> timedelta:
    """The duration of `10`, `10s`, `500ms`, `5m`, `2h` or `1d`; raises CommandError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise usage_error(f"{text!r} is no duration. Write 10s, 500ms, 5m, 2h or 1d.")
    try:
        return timedelta(seconds=float(match["number"]) * _UNITS[match["unit"]])
    except OverflowError as error:
        raise usage_error(f"{text!r} is too long a duration.") from error
