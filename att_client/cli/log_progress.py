"""How far a long export has come, for who waits for it at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import att_client
from att_client.cli.output import Output

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 1.0  # seconds: what is quicker needs no bar


class ExportProgress:
    """Counts records of any number of logs, and shows them once it takes long."""

    def __init__(
        self,
        output: Output,
        bar: Progress | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._bar = bar
        self._clock = clock
        self._begin = clock()
        self._starts: dict[str, int] = {}
        self._cursors: dict[str, tuple[int, int]] = {}

    def note(self, text: str) -> None:
        """Prints a dim line for people on stderr, above the bar."""
        if self._bar is None:
            self._output.note(text)
        else:
            self._bar.console.print(text, style="dim", markup=False, soft_wrap=True)

    def printed(self, project_id: str, batch: att_client.LogBatch) -> None:
        """Notes how far the log was printed."""
        bar = self._bar
        if bar is None:
            return
        first = next(map(_first, batch.records), batch.cursor)
        self._starts.setdefault(project_id, first)
        self._cursors[project_id] = (batch.cursor, batch.end_cursor)
        if not bar.live.is_started:
            if self._clock() - self._begin < _PATIENCE:
                return
            bar.add_task("")
            bar.start()
        start = sum(self._starts.values())
        done, total = (sum(column) - start for column in zip(*self._cursors.values(), strict=True))
        bar.update(bar.task_ids[0], completed=done, total=total)


@contextmanager
def export_progress(output: Output, *, wanted: bool) -> Iterator[ExportProgress]:
    """Shows a bar on stderr where that is a terminal and stdout is none."""
    if not wanted or sys.stdout.isatty() or not sys.stderr.isatty():
        yield ExportProgress(output, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *(BarColumn(), MofNCompleteColumn(), "records", TimeRemainingColumn()),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )
    try:
        yield ExportProgress(output, bar)
    finally:
        bar.stop()


def _first(record: att_client.LogRecord) -> int:
    if record.chunk is not None:
        return record.chunk.first_sequence
    if record.run is not None:
        return record.run.sequence
    return record.gap.first_sequence if record.gap is not None else 0
