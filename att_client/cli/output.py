"""What a command prints: tables and sentences for people, JSON lines for programs.

Results go to stdout, everything else to stderr. Colour and live progress are for
terminals only; NO_COLOR is honoured.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from att_client.cli.exits import CommandError

if TYPE_CHECKING:
    from rich.console import Console


class Output:
    """Prints one command's results in the form that was asked for.

    Where nobody looks at a terminal the same words come without rich, whose import is a
    tenth of what a command takes, and nothing is cut or wrapped.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def item(self, value: object) -> None:
        """Prints a message, a mapping or a scalar as one JSON line, at once."""
        sys.stdout.write(json.dumps(to_plain(value)) + "\n")
        sys.stdout.flush()

    def say(self, text: str = "", style: str = "") -> None:
        """Prints a line for people on stdout."""
        if not sys.stdout.isatty():
            sys.stdout.write(f"{text}\n")
            return
        _console(stderr=False).print(text, style=style, markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Prints a dim line for people on stderr. Nothing ends where nobody can read it."""
        dim = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        with suppress(OSError):
            sys.stderr.write(f"\x1b[2m{text}\x1b[0m\n" if dim else f"{text}\n")
            sys.stderr.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Prints rows under their columns."""
        if not sys.stdout.isatty():
            _write_aligned([columns, *rows])
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        _console(stderr=False).print(table)

    def facts(self, facts: Mapping[str, str]) -> None:
        """Prints names and values, one pair a line; empty values are left out."""
        facts = {name: value for name, value in facts.items() if value}
        if not sys.stdout.isatty():
            _write_aligned(list(facts.items()))
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(name, Text(value, style=_STYLES.get(value, "")))
        _console(stderr=False).print(table)

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Shows `text` with a spinner while the context lasts, on a terminal."""
        if self.as_json or not sys.stderr.isatty():
            return nullcontext()
        from rich.markup import escape

        return _console(stderr=True).status(escape(text))

    def error(self, error: CommandError) -> None:
        """Prints an error on stderr: a line with the reason at its end, below it what it quotes."""
        if self.as_json:
            fields = {
                "reason": error.reason,
                "message": error.message,
                "metadata": error.metadata,
            }
            sys.stderr.write(json.dumps({"error": fields}) + "\n")
            return
        said, *quoted = error.message.splitlines() or [""]
        text = "\n".join([f"{printable(said)} ({error.reason})", *map(printable, quoted)])
        if not sys.stderr.isatty():
            sys.stderr.write(f"error: {text}\n")
            return
        console = _console(stderr=True)
        console.print("error: ", style="bold red", end="", markup=False, soft_wrap=True)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


_STYLES = {
    "ready": "green",
    "running": "green",
    "ok": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "backoff": "yellow",
    "warn": "yellow",
    "unknown": "yellow",
    "failed": "red",
    "fail": "red",
}


def state_style(state: str) -> str:
    """The colour of a state; empty for none."""
    return _STYLES.get(state, "")


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, soft_wrap=True)


def _write_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Writes rows with their cells under each other."""
    flat = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*flat, strict=True)]
    for row in flat:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def printable(text: str) -> str:
    """`text` on one line, without the control characters that could drive a terminal."""
    return "".join(c if c.isprintable() else " " if c == "\n" else repr(c)[1:-1] for c in text)


def quiet_stdout() -> None:
    """Sends what Python still holds for a closed stdout nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def to_plain(value: object) -> object:
    """A value as JSON can hold it.

    Messages and other dataclasses become objects without the fields that are
    unset; enums their names in lower case; times RFC 3339 in UTC; durations
    seconds; integers stay numbers.
    """
    match value:
        case enum.Enum():
            return (value.name or str(value.value)).lower()
        case datetime():
            return time_text(value)
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.decode(errors="replace")
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case list() | tuple():
            return [to_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
            return {name: to_plain(item) for name, item in fields if item is not None}
        case _:
            return value


def time_text(time: datetime) -> str:
    """A time as RFC 3339 in UTC, always with six decimals, so that texts sort as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time(time: datetime | None) -> str:
    """A time for people, in their time zone; empty for None."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration_text(duration: timedelta) -> str:
    """A duration for people: `0.35 s`, `12.0 s`, `3 min 5 s`, `2 h 0 min`, `4 d 1 h`."""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
