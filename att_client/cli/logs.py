"""`att logs`: the log of an app, as it was printed or as JSON."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, usage_error
from att_client.cli.log_output import JsonLog, PlainLog, SeverityLog
from att_client.cli.output import Output
from att_client.cli.session import Json, ProjectId, Target, parse_duration, reported, run

# The server's bounds for one page (log_service.proto).
PAGE_LINES = 100_000
PAGE_BYTES = 3 << 20


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Apps")(logs)


def logs(
    project_id: ProjectId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with every line that comes.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(min=0, help="Begin with the last so many lines.", show_default=False),
    ] = None,
    cursor: Annotated[
        int | None,
        typer.Option(help="Begin with the record of this sequence number.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin with what came since this time (2026-01-31T12:00:00Z) or this long ago "
            "(10m).",
            show_default=False,
        ),
    ] = None,
    until_exit: Annotated[
        bool,
        typer.Option(
            "--until-exit",
            help="Follow until the current run has ended; if none runs, the last one where its end "
            "is still to be printed, else the next.",
        ),
    ] = False,
    severity: Annotated[
        bool,
        typer.Option(
            "--severity",
            help="Show how severe each line is, as its text says; one that says nothing, such as "
            "a line of a traceback, is as severe as the line before it.",
        ),
    ] = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Print the app's log from its beginning, or follow it.

    Lines go to stdout exactly as the app wrote them, of both its streams; run
    markers and gaps go to stderr. A follow goes on by itself when the server
    comes back.

    With --json: {"sequence", "time", "stream", "run_id", "line"} for a line, with
    "line_base64" where the bytes are not UTF-8, "partial" or "unterminated" where
    true, and "severity" with --severity; {"sequence", "run"} for a run marker;
    {"gap": {"first_sequence", "count", "reason"}} for what is missing.
    """
    output = Output(as_json=as_json)
    with reported(output):
        if sum(option is not None for option in (tail, cursor, since)) > 1:
            raise usage_error("--tail, --cursor and --since exclude each other. Give one.")
        start = None if since is None else parse_since(since, datetime.now(UTC))
    stdout = sys.stdout.fileno()
    log = _log(stdout, output, severity=severity)

    async def call(att: att_client.Client) -> None:
        if follow or until_exit:
            pages = _follow(att, project_id, cursor, tail, start, until_exit)
        else:
            pages = _read(att, project_id, cursor, tail, start)
        async with aclosing(pages):
            async for records in pages:
                log.print(records)

    run(call, target=target, output=output)


def _log(stdout: int, output: Output, *, severity: bool) -> JsonLog | PlainLog | SeverityLog:
    if output.as_json:
        return JsonLog(stdout, att_client.SeverityReader() if severity else None)
    if severity:
        coloured = os.isatty(stdout) and not os.environ.get("NO_COLOR")
        return SeverityLog(stdout, output.note, coloured=coloured)
    return PlainLog(stdout, output.note)


async def _follow(
    att: att_client.Client,
    project_id: str,
    cursor: int | None,
    tail: int | None,
    since: datetime | None,
    until_exit: bool,
) -> AsyncGenerator[Sequence[att_client.LogRecord], None]:
    follow = att.logs.follow(
        project_id, cursor=cursor, tail=tail, since=since, until_exit=until_exit
    )
    try:
        async for batch in follow.batches():
            yield batch.records
    finally:
        await follow.aclose()


async def _read(
    att: att_client.Client,
    project_id: str,
    cursor: int | None,
    tail: int | None,
    since: datetime | None,
) -> AsyncGenerator[Sequence[att_client.LogRecord], None]:
    """What the log holds now: the next page is on its way while one is printed."""
    page = await att.logs.read(
        project_id, cursor=cursor, tail=tail, since=since, limit=PAGE_LINES, max_bytes=PAGE_BYTES
    )
    end, log_id = page.end_cursor, page.log_id
    while page.has_more and page.cursor < end:
        ahead = asyncio.ensure_future(
            att.logs.read(
                project_id,
                cursor=page.cursor,
                log_id=log_id,
                limit=min(PAGE_LINES, end - page.cursor),
                max_bytes=PAGE_BYTES,
            )
        )
        try:
            await asyncio.sleep(0)  # lets the request leave before the printing blocks
            yield page.records
            page = await ahead
        finally:
            ahead.cancel()
    yield page.records


def parse_since(text: str, now: datetime) -> datetime:
    """The time of an ISO date and time (local without an offset), or of a duration ago."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return now - parse_duration(text)
    except OverflowError as error:
        raise usage_error(f"--since {text!r} is too long ago.") from error
