"""`att status --watch`: the states of apps as a live table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import att_client
from att_client.cli.output import Output, duration_text, printable, state_style, to_plain

if TYPE_CHECKING:
    from rich.table import Table

MEASURE_EVERY = timedelta(seconds=2)
"""Between two looks at what cannot be watched: usage and last lines."""
_LOOKS_AT_ONCE = 16
_ALIVE = ("starting", "running", "ready", "stopping")
_COLUMNS = ("PROJECT", "STATE", "READY", "UP", "RESTARTS", "CPU", "MEMORY", "RELEASE", "LAST LINE")


@dataclass
class Board:
    """What the table shows."""

    runtimes: dict[str, att_client.Runtime] = field(default_factory=dict)
    last_lines: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def accept(self, change: att_client.WatchRuntimesResponse) -> None:
        """Takes a change of states."""
        for runtime in change.runtimes:
            self.runtimes[runtime.project_id] = runtime
        for project_id in change.deleted_project_ids:
            self.runtimes.pop(project_id, None)
            self.last_lines.pop(project_id, None)

    def table(self, now: datetime) -> Table:
        """The table as of `now`."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", caption=self.note or None)
        for column in _COLUMNS:
            last = column == "LAST LINE"
            table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1 if last else None)
        for project_id, runtime in sorted(self.runtimes.items()):
            cells = row(runtime, self.last_lines.get(project_id, ""), now)
            styled = (Text(cell) for cell in cells[2:])
            state = Text(cells[1], style=state_style(str(to_plain(runtime.state))))
            table.add_row(cells[0], state, *styled)
        table.expand = True
        return table


async def watch(att: att_client.Client, project_ids: list[str], output: Output) -> None:
    """Shows every change until it is interrupted: a table on a terminal, else a line each."""
    changes = att.runtimes.watch(project_ids=project_ids)
    if output.as_json:
        async for change in changes:
            for runtime in change.runtimes:
                output.item(runtime)
            for project_id in change.deleted_project_ids:
                output.item({"project_id": project_id, "deleted": True})
    elif not sys.stdout.isatty():
        async for change in changes:
            for runtime in change.runtimes:
                output.say("  ".join(filter(None, row(runtime, "", datetime.now(UTC)))))
            for project_id in change.deleted_project_ids:
                output.say(f"{project_id}  deleted")
            sys.stdout.flush()
    else:
        await _watch_live(att, changes, Board(), set(project_ids))


async def _watch_live(
    att: att_client.Client, changes: att_client.RuntimeWatch, board: Board, wanted: set[str]
) -> None:
    from rich.live import Live

    def table() -> Table:
        return board.table(datetime.now(UTC))

    async def take_changes() -> None:
        async for change in changes:
            board.accept(change)

    try:
        with Live(get_renderable=table, refresh_per_second=4):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(take_changes())
                tasks.create_task(_measure(att, board, lambda name: not wanted or name in wanted))
    except* att_client.AttError as errors:
        raise errors.exceptions[0] from None


async def _measure(att: att_client.Client, board: Board, is_wanted: Callable[[str], bool]) -> None:
    """Brings usage and last lines up to date, again and again."""
    ends: dict[str, int] = {}
    while True:
        try:
            runtimes = [
                r async for r in att.runtimes.list(page_size=1000) if is_wanted(r.project_id)
            ]
            for runtime in runtimes:
                if runtime.project_id in board.runtimes:
                    board.runtimes[runtime.project_id] = runtime
            grown = [r for r in runtimes if ends.get(r.project_id) != r.log_end_cursor]
            await _read_last_lines(att, board, [r.project_id for r in grown])
            ends.update((r.project_id, r.log_end_cursor) for r in grown)
            board.note = ""
        except att_client.UnavailableError:
            board.note = "the server cannot be reached; this is what was known last"
        await asyncio.sleep(MEASURE_EVERY.total_seconds())


async def _read_last_lines(att: att_client.Client, board: Board, names: Iterable[str]) -> None:
    limit = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def read(name: str) -> None:
        async with limit:
            try:
                page = await att.logs.read(name, tail=1)
            except att_client.ProjectNotFoundError:
                return  # deleted meanwhile, as the watch will say
        for item in att_client.log_items(page.records):
            if isinstance(item, att_client.LogLine):
                board.last_lines[name] = printable(item)

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(read(name))


def row(runtime: att_client.Runtime, last_line: str, now: datetime) -> tuple[str, ...]:
    """The cells of one app, as in `_COLUMNS`."""
    usage = runtime.usage
    alive = str(to_plain(runtime.state)) in _ALIVE
    return (
        runtime.project_id,
        _state(runtime, now),
        _readiness(runtime) if alive else "",
        duration_text(now - runtime.start_time) if alive and runtime.start_time else "",
        str(runtime.restarts or ""),
        f"{usage.cpu_percent:.0f} %" if alive and usage else "",
        memory_text(usage.resident_memory_bytes) if alive and usage else "",
        runtime.release_id[:12],
        last_line,
    )


def memory_text(size: int) -> str:
    """A size for people, such as `61 MiB`."""
    for unit, factor in _UNITS.items():
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


_UNITS: Mapping[str, int] = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


def _state(runtime: att_client.Runtime, now: datetime) -> str:
    state = str(to_plain(runtime.state))
    if runtime.next_restart_time is not None and state == "backoff":
        wait = max(runtime.next_restart_time - now, timedelta(0))
        return f"backoff, {duration_text(wait)} ({runtime.reason})"
    return f"{state} ({runtime.reason})" if runtime.reason else state


def _readiness(runtime: att_client.Runtime) -> str:
    if runtime.healthy is None:
        return "yes" if runtime.ready_time is not None else "no"
    return "yes" if runtime.healthy else f"no ({runtime.health_reason})"
