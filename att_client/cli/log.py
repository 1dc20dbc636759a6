"""`att log`: the log of an app as a whole; `att logs` prints its lines."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP
from att_client.cli.log_options import parse_time
from att_client.cli.output import Output, local_time
from att_client.cli.session import Json, ProjectId, Target, reported, run
from att_client.cli.settings_text import size_text

commands = typer.Typer(
    help="Describe and trim the logs of apps; `att logs` prints them.",
    no_args_is_help=True,
    epilog=EXIT_CODES_HELP,
)


@commands.command(epilog=EXIT_CODES_HELP)
def info(project_id: ProjectId, target: Target = None, as_json: Json = False) -> None:
    """Show what the log holds, how large it is, and how fast it grows."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        log = await att.logs.info(project_id)
        if as_json:
            output.item(log)
            return
        pace = f"{log.lines_per_second:,.1f} lines/s, {size_text(round(log.bytes_per_second))}/s"
        output.facts(
            {
                "project": project_id,
                "log": log.log_id,
                "records": f"{log.start_cursor:,} to {log.end_cursor:,} (the next one)",
                "first": local_time(log.first_time),
                "last": local_time(log.last_time),
                "size": f"{size_text(log.size_bytes)} in {log.segment_count} segments",
                "pace": f"{pace}, over the last minute",
            }
        )

    run(call, target=target, output=output)


@commands.command(epilog=EXIT_CODES_HELP)
def trim(
    project_id: ProjectId,
    before: Annotated[
        str,
        typer.Option(
            metavar="CURSOR|TIME",
            help="What is older may go: than a sequence number (5000), a time "
            "(2026-01-31T12:00:00Z), or so long ago (7d).",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Remove old records of the log, as whole segments: some of what is named may stay.

    Who reads from before is told exactly what is missing.
    """
    output = Output(as_json=as_json)
    with reported(output):
        time = None if before.isdigit() else parse_time("--before", before, datetime.now(UTC))
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(
            f"Remove what the log of {project_id} holds from before {before}?", abort=True, err=True
        )

    async def call(att: att_client.Client) -> None:
        cursor = int(before) if time is None else await _cursor_at(att, project_id, time)
        start = await att.logs.trim(project_id, before_cursor=cursor)
        if as_json:
            output.item({"project_id": project_id, "start_cursor": start})
        else:
            output.say(f"The log of {project_id} begins with record {start:,} now.")

    run(call, target=target, output=output)


async def _cursor_at(att: att_client.Client, project_id: str, time: datetime) -> int:
    """The first record that arrived then or later; the log's end where there is none."""
    page = await att.logs.read(project_id, since=time, limit=1)
    for item in att_client.log_items(page.records, markers=True):
        if isinstance(item, att_client.LogGap):
            return item.first_sequence
        return item.sequence
    return page.end_cursor
