"""The options of `att logs` that say which lines, and what they mean to the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, TypedDict, TypeVar

import typer

import att_client
from att_client.cli.exits import CommandError, usage_error
from att_client.cli.option_group import takes
from att_client.cli.session import parse_duration

V = TypeVar("V")

_WHERE = "Where to begin"
_WHICH = "Which lines"

_LEVELS = {
    "debug": att_client.LogSeverity.DEBUG,
    "info": att_client.LogSeverity.INFO,
    "warning": att_client.LogSeverity.WARNING,
    "error": att_client.LogSeverity.ERROR,
    "critical": att_client.LogSeverity.CRITICAL,
}
_ALSO = {"warn": "warning", "err": "error", "fatal": "critical"}
_STREAMS = {"stdout": att_client.LogStream.STDOUT, "stderr": att_client.LogStream.STDERR}
_LAST = "last"
_LONGEST_TAIL = 100_000_000
_LAST_CURSOR = (1 << 63) - 1
_LONGEST_PATTERN = 4096
_SHOWN_CHARACTERS = 200
_SHOWN_RUNS = 3
_OF_RUNS = ("runtime.started", "runtime.ended")
_RUN_ID = re.compile(r"[0-9A-Z]{26}")


def _option(*names: str, text: str, metavar: str, panel: str, values: tuple[str, ...] = ()) -> Any:
    return typer.Option(
        *names,
        help=text,
        metavar=metavar,
        show_default=False,
        rich_help_panel=panel,
        autocompletion=(lambda: list(values)) if values else None,
    )


class Position(TypedDict, total=False):
    """Where a follow begins; see `att_client.Client.logs`."""

    tail: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What the options gave; None where one was not given."""

    tail: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--tail",
            min=0,
            max=_LONGEST_TAIL,
            help="Begin with the last so many lines.",
            show_default=False,
            rich_help_panel=_WHERE,
        ),
    ] = None
    cursor: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=_LAST_CURSOR,
            help="Begin with the record of this sequence number, in the log of one project.",
            show_default=False,
            rich_help_panel=_WHERE,
        ),
    ] = None
    since: Annotated[
        str | None,
        _option(
            "--since",
            text="Begin with what came since this time (2026-01-31T12:00:00Z) or this long ago "
            "(10m); with --tail the last lines of that.",
            metavar="TIME",
            panel=_WHERE,
        ),
    ] = None
    until: Annotated[
        str | None,
        _option("--until", text="Only what came before then.", metavar="TIME", panel=_WHICH),
    ] = None
    grep: Annotated[
        str | None,
        _option(
            "-g",
            "--grep",
            text="Only lines in which this is found, an RE2 pattern such as 'timeout|refused'; "
            "(?i) in front of it finds both cases.",
            metavar="PATTERN",
            panel=_WHICH,
        ),
    ] = None
    level: Annotated[
        str | None,
        _option(
            "--level",
            text="Only lines that are at least so severe: debug, info, warning, error or critical. "
            "One that does not say, such as a line of a traceback, is as severe as the one before.",
            metavar="LEVEL",
            panel=_WHICH,
            values=tuple(_LEVELS),
        ),
    ] = None
    stream: Annotated[
        str | None,
        _option(
            "--stream",
            text="Only lines of this stream: stdout or stderr.",
            metavar="STREAM",
            panel=_WHICH,
            values=tuple(_STREAMS),
        ),
    ] = None
    run: Annotated[
        str | None,
        _option(
            "--run",
            text="Only this run of the app: its id, or last for the newest.",
            metavar="RUN",
            panel=_WHICH,
            values=(_LAST,),
        ),
    ] = None

    def check(self, *, is_of_one: bool, now: datetime) -> None:
        """Raises CommandError for what no log can be asked.

        is_of_one: whether the log of one project is asked for.
        """
        if self.cursor is not None:
            if self.tail is not None or self.since is not None:
                raise usage_error("--cursor excludes --tail and --since. Give one of them.")
            if not is_of_one:
                raise usage_error("--cursor is a place in one log. Name one project.")
        if self.run is not None:
            if not is_of_one:
                raise usage_error("--run is a run of one app. Name one project.")
            if self.run != _LAST and not _RUN_ID.fullmatch(self.run.upper()):
                raise usage_error(
                    f"--run {self.run!r} is no run. Write last, or an id as `att logs` and "
                    "`att status PROJECT` show it."
                )
        self.selection(now)

    def position(self, now: datetime) -> Position:
        """Where to begin, but for a cursor."""
        if self.tail is not None:
            return {"tail": self.tail}
        if self.since is not None:
            return {"since": parse_time("--since", self.since, now)}
        return {}

    def selection(self, now: datetime) -> att_client.LogSelection:
        """Which lines, but for the run. Raises CommandError."""
        selection: att_client.LogSelection = {}
        since = None if self.since is None else parse_time("--since", self.since, now)
        if self.until is not None:
            until = selection["end_time"] = parse_time("--until", self.until, now)
            if since is not None and until <= since:
                raise usage_error(
                    f"--until {self.until} is not later than --since {self.since}: nothing lies "
                    "between. Exchange them."
                )
        if self.tail is not None and since is not None:
            selection["start_time"] = since
        if self.grep is not None:
            if not self.grep:
                raise usage_error("--grep '' finds every line. Leave it out, or give a pattern.")
            size = len(self.grep.encode())
            if size > _LONGEST_PATTERN:
                raise usage_error(
                    f"--grep has {size:,} bytes. A pattern has at most {_LONGEST_PATTERN:,}."
                )
            selection["pattern"] = self.grep
        if self.level is not None:
            level = self.level.lower()
            selection["min_severity"] = _choice("--level", _ALSO.get(level, level), _LEVELS)
        if self.stream is not None:
            selection["streams"] = [_choice("--stream", self.stream.lower(), _STREAMS)]
        return selection

    @property
    def is_about_lines(self) -> bool:
        """Whether lines are picked out, so that what lies between is not wanted."""
        return bool(self.grep or self.level or self.stream)

    async def run_id(self, att: att_client.Client, project_id: str) -> str:
        """The run that is asked for; empty for all. Raises CommandError, AttError."""
        if self.run is None:
            return ""
        newest = (await att.runtimes.get(project_id)).run_id
        if not newest:
            raise CommandError(
                "NO_RUN",
                f"Project {project_id} has had no run. Start one with `att start {project_id}`.",
                metadata={"project_id": project_id},
            )
        wanted = newest if self.run == _LAST else self.run.upper()
        if wanted != newest:
            await _check_run(att, project_id, wanted)
        return wanted

    def refused(self, error: att_client.FieldInvalidError) -> CommandError | None:
        """The error of an option, where it is one that the server refused."""
        rules = {violation.field: violation.description for violation in error.violations}
        if "filter.pattern" in rules:
            pattern = repr(self.grep)
            if len(pattern) > _SHOWN_CHARACTERS:
                pattern = f"{pattern[:_SHOWN_CHARACTERS]}…"
            return usage_error(
                f"--grep {pattern} {rules['filter.pattern']}. Write one such as "
                r"'timeout|refused'; put \ in front of ( [ . * + ? | that are meant as they are."
            )
        return None


takes_log_options = takes(LogOptions)


async def _check_run(att: att_client.Client, project_id: str, run_id: str) -> None:
    """Raises CommandError for a run that the project never had, which would print nothing."""
    last: dict[str, None] = {}
    cursor, has_more = 0, True
    while has_more:
        page = await att.events.list(
            project_id=project_id, event_types=_OF_RUNS, cursor=cursor, page_size=1000
        )
        cursor, has_more = page.cursor, page.has_more
        last |= dict.fromkeys(event.run_id for event in page.events)
        if run_id in last:
            return
        last = dict.fromkeys(list(last)[-_SHOWN_RUNS:])
    raise CommandError(
        "RUN_NOT_FOUND",
        f"Project {project_id} has had no run {run_id}. Its last ones are {', '.join(last)}; "
        f"`att events {project_id}` shows more.",
        metadata={"project_id": project_id, "run_id": run_id},
    )


def _choice(option: str, text: str, values: Mapping[str, V]) -> V:
    if text in values:
        return values[text]
    near = get_close_matches(text, values, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise usage_error(f"{option} {text!r} is none of {', '.join(values)}.{meant}")


def parse_time(option: str, text: str, now: datetime) -> datetime:
    """The time of an ISO date and time (local without an offset), or of a duration ago."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return now - parse_duration(text)
    except OverflowError as error:
        raise usage_error(f"{option} {text!r} is too long ago.") from error
    except CommandError as error:
        raise usage_error(
            f"{option} {text!r} is no time. Write how long ago, such as 30s, 10m, 2h or 1d, or "
            "when, such as 2026-01-31T12:00:00Z."
        ) from error
