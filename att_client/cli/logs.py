"""`att logs`: the logs of apps, as they were printed, by project or as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, usage_error
from att_client.cli.log_options import LogOptions, takes_log_options
from att_client.cli.log_output import JsonLog, LabelledLog, LogPrinter, PlainLog
from att_client.cli.log_progress import export_progress
from att_client.cli.output import Output
from att_client.cli.reader_gone import ended_with_reader
from att_client.cli.session import Json, Target, complete_project, reported, run

_LONGEST_OUTAGE = timedelta(seconds=30)


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Apps")(logs)


@takes_log_options
def logs(
    options: LogOptions,
    project_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROJECT...",
            help="The ids of the projects.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "-a",
            "--all",
            help="Of all projects; with --follow also of those that are created later.",
        ),
    ] = False,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with every line that comes.")
    ] = False,
    until_exit: Annotated[
        bool,
        typer.Option(
            "--until-exit",
            help="Follow until the current run has ended; if none runs, the last one where its end "
            "is still to be printed, else the next.",
        ),
    ] = False,
    timestamps: Annotated[
        bool,
        typer.Option("-t", "--timestamps", help="Show when each line arrived, as RFC 3339 in UTC."),
    ] = False,
    severity: Annotated[
        bool,
        typer.Option(
            "--severity",
            help="Show how severe each line is, as its text says; one that says nothing, such as "
            "a line of a traceback, is as severe as the line before it.",
        ),
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Only the bytes that the apps wrote: no names, no notes."),
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours of ATT's, as with NO_COLOR.")
    ] = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Print the logs of apps from their beginning, or follow them.

    The lines of one app go to stdout exactly as it wrote them, of both its streams;
    those of several are ordered by time, each behind its project. Run markers and
    gaps go to stderr; markers are left out where lines are picked out by --grep,
    --level or --stream. A follow goes on by itself when the server comes back.

    With --json: {"sequence", "time", "stream", "run_id", "line"} for a line, with
    "line_base64" where the bytes are not UTF-8, "partial" or "unterminated" where
    true, "severity" with --severity, and "project_id" where there are several;
    {"sequence", "run"} for a run marker; {"gap": {"first_sequence", "count",
    "reason"}} for what is missing.
    """
    output = Output(as_json=as_json)
    names = list(dict.fromkeys(project_ids or ()))
    now = datetime.now(UTC)
    with reported(output):
        if every == bool(names):
            raise usage_error("Name the projects, as in `att logs web worker`, or give --all.")
        if raw and (as_json or timestamps or severity):
            raise usage_error("--raw excludes --json, --timestamps and --severity.")
        options.check(is_of_one=len(names) == 1, now=now)
    stdout, is_of_one = sys.stdout.fileno(), len(names) == 1
    is_export = not (follow or until_exit)

    def printer(note: Callable[[str], None], known: Sequence[str]) -> LogPrinter:
        if as_json:
            return JsonLog(stdout, severities=severity, names=not is_of_one)
        if raw or (is_of_one and not (timestamps or severity)):
            return PlainLog(stdout, None if raw else note)
        return LabelledLog(
            stdout,
            note,
            names=None if is_of_one else known,
            times=timestamps,
            severities=severity,
            coloured=os.isatty(stdout) and not (no_color or os.environ.get("NO_COLOR")),
        )

    async def call(att: att_client.Client) -> None:
        batches = _batches(att, names, options, now, is_export=is_export, until_exit=until_exit)
        async with ended_with_reader(stdout), aclosing(batches):
            with export_progress(output, wanted=is_export) as progress:
                log = printer(progress.note, names or await _project_ids(att))
                async for project_id, batch in batches:
                    log.print(project_id, _wanted(batch, options))
                    progress.printed(project_id, batch)

    async def checked(att: att_client.Client) -> None:
        try:
            await call(att)
        except att_client.FieldInvalidError as error:
            raise options.refused(error) or error from error

    run(checked, target=target, output=output)


async def _project_ids(att: att_client.Client) -> list[str]:
    return [project.project_id async for project in att.projects.list()]


async def _batches(
    att: att_client.Client,
    names: Sequence[str],
    options: LogOptions,
    now: datetime,
    *,
    is_export: bool,
    until_exit: bool,
) -> AsyncGenerator[att_client.ProjectBatch, None]:
    selection = options.selection(now)
    max_elapsed = _LONGEST_OUTAGE if is_export else None
    if len(names) != 1:
        merge = att.logs.merge(
            names,
            until_now=is_export,
            until_exit=until_exit,
            max_elapsed=max_elapsed,
            **options.position(now),
            **selection,
        )
        async for merged in merge.batches():
            yield merged
        return
    (project_id,) = names
    selection["run_id"] = await options.run_id(att, project_id)
    one = att.logs.follow(
        project_id,
        cursor=options.cursor,
        until_now=is_export,
        until_exit=until_exit,
        max_elapsed=max_elapsed,
        **options.position(now),
        **selection,
    )
    async for batch in one.batches():
        yield att_client.ProjectBatch(project_id, batch)


def _wanted(batch: att_client.LogBatch, options: LogOptions) -> Sequence[att_client.LogRecord]:
    if not options.is_about_lines:
        return batch.records
    return [record for record in batch.records if record.run is None]
